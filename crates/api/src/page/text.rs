//! Writes numbers, tokens and texts of users for people.

use std::fmt::Write as _;

use crate::parameters::Field;

/// Hexadecimal digits of a shortened token.
const SHORT: usize = 8;

/// Names the kind of a token.
pub(super) fn kind(field: Field) -> &'static str {
    match field {
        Field::DeviceId => "Device",
        Field::Ip => "Address",
    }
}

/// Separates the thousands: `1234567` becomes `1,234,567`.
pub(super) fn separate_thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Shortens a token for a label.
pub(super) fn shorten(token: &str) -> String {
    token.chars().take(SHORT).collect()
}

/// Writes invisible characters as `⟨U+202E⟩`. Otherwise two different user ids could look the same, or
/// reverse the text beside them.
pub(super) fn show(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_invisible(character) {
            let _ = write!(shown, "⟨U+{:04X}⟩", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Shortens a user's text to `width` columns for a drawing.
pub(super) fn label(text: &str, width: usize) -> String {
    let text = show(text);
    if columns(&text) <= width {
        return text;
    }
    let mut label = String::new();
    for character in text.chars() {
        if columns(&label) + columns(character.encode_utf8(&mut [0; 4])) > width - 1 {
            break;
        }
        label.push(character);
    }
    label + "…"
}

/// Columns that a text takes. A character outside ASCII may take two.
pub(super) fn columns(text: &str) -> usize {
    text.chars().map(|character| if character.is_ascii() || character == '…' { 1 } else { 2 }).sum()
}

/// Controls, and what Unicode calls format and space characters, except the space itself.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || (character != ' ' && character.is_whitespace())
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        let numbers = [0, 7, 999, 1000, 1_234_567, -1000, i64::MIN];

        let texts = numbers.map(separate_thousands);

        assert_eq!(texts, ["0", "7", "999", "1,000", "1,234,567", "-1,000", "-9,223,372,036,854,775,808"]);
    }

    #[test]
    fn invisible_characters_are_shown() {
        let text = "a\u{202e}b\u{200b}\n c\u{301}é 字";

        let shown = show(text);

        assert_eq!(shown, "a⟨U+202E⟩b⟨U+200B⟩⟨U+000A⟩ c\u{301}é 字");
    }

    #[test]
    fn long_label_is_shortened() {
        let texts = ["short", "exactly-10", "longer than 10", "字字字字字字"];

        let labels = texts.map(|text| label(text, 10));

        assert_eq!(labels, ["short", "exactly-10", "longer th…", "字字字字…"]);
    }
}
