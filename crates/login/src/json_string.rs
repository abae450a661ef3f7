//! JSON strings that are still JSON source: quotes around, escapes inside.

use secrecy::zeroize::Zeroizing;

/// Half of a surrogate pair stands alone in a string, so the string is not Unicode text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotText;

/// Returns the characters between the quotes, still escaped; `None` where the JSON is not a string.
pub(crate) fn inside_quotes(source: &str) -> Option<&str> {
    source.strip_prefix('"')?.strip_suffix('"')
}

/// Returns the text that a valid JSON string stands for; `None` where the JSON is not a string.
///
/// The text is a copy that is wiped when it is dropped. The JSON parser would leave a second copy, the
/// buffer in which it unescapes, in freed memory, and an enveloped or nested body would take 20 to 30 % longer.
pub(crate) fn unescape(source: &str) -> Option<Result<Zeroizing<String>, NotText>> {
    let mut rest = inside_quotes(source)?;
    // A text is never longer than its source, so the copy is never moved to a larger buffer.
    let mut text = Zeroizing::new(String::with_capacity(rest.len()));
    // Faster than `split_once`: in an escaped body the next backslash is near.
    while let Some(backslash) = rest.bytes().position(|byte| byte == b'\\') {
        text.push_str(&rest[..backslash]);
        let Some((character, after)) = escaped_char(&rest[backslash + 1..]) else {
            return Some(Err(NotText));
        };
        text.push(character);
        rest = after;
    }
    text.push_str(rest);
    Some(Ok(text))
}

/// Splits what follows a backslash into the character that the [escape] stands for and the rest; `None`
/// for half of a surrogate pair.
///
/// [escape]: https://www.rfc-editor.org/rfc/rfc8259#section-7
fn escaped_char(escape: &str) -> Option<(char, &str)> {
    let mut chars = escape.chars();
    let character = match chars.next()? {
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => return utf16_char(chars.as_str()),
        same => same,
    };
    Some((character, chars.as_str()))
}

/// Splits a text that starts with the four digits of a `\u` escape into the character and the rest.
fn utf16_char(digits: &str) -> Option<(char, &str)> {
    let (unit, rest) = utf16_unit(digits)?;
    if let Some(character) = char::from_u32(unit.into()) {
        return Some((character, rest));
    }
    let (low, rest) = utf16_unit(rest.strip_prefix("\\u")?)?;
    Some((char::decode_utf16([unit, low]).next()?.ok()?, rest))
}

fn utf16_unit(digits: &str) -> Option<(u16, &str)> {
    let (digits, rest) = digits.split_at_checked(4)?;
    Some((u16::from_str_radix(digits, 16).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unescaped(source: &str) -> Result<String, NotText> {
        unescape(source).unwrap().map(|text| (*text).clone())
    }

    #[test]
    fn lone_surrogates_are_not_text() {
        for source in
            [r#""\ud800""#, r#""\ud800x""#, r#""\ud800\n""#, r#""\ud800\ud800""#, r#""\udc00\ud800""#]
        {
            assert_eq!(unescaped(source), Err(NotText), "{source}");
        }
        assert_eq!(unescaped(r#""\uD83d\ude00""#), Ok("😀".to_owned()));
    }

    proptest! {
        #[test]
        fn text_equals_that_of_parser(source in r#""([a-zé😀"]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}|\\u[dD][89abABcdefCDEF][0-9a-f]{2}){0,9}""#) {
            let source = format!("\"{}\"", source[1..source.len() - 1].replace('"', "\\\""));
            if let Ok(raw) = serde_json::from_str::<&serde_json::value::RawValue>(&source) {
                let parsed = serde_json::from_str::<String>(&source).map_err(|_| NotText);
                prop_assert_eq!(unescaped(raw.get()), parsed);
            }
        }
    }
}
