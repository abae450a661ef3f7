//! JSON's string literals: what they stand for.

use secrecy::zeroize::Zeroizing;

/// Half of a surrogate pair stands alone in a literal, so that it stands for no text.
#[derive(Debug)]
pub(crate) struct NotText;

/// What is between the quotes of a string literal; `None` where the JSON is something else.
pub(crate) fn content(source: &str) -> Option<&str> {
    source.strip_prefix('"')?.strip_suffix('"')
}

/// The text that a string literal stands for, in `room` if it had to be unescaped; `None` where the
/// JSON is something else.
pub(crate) fn text<'t>(source: &'t str, room: &'t mut Vec<u8>) -> Option<Result<&'t str, NotText>> {
    let literal = content(source)?;
    if !literal.contains('\\') {
        return Some(Ok(literal));
    }
    if !unescape(literal, room) {
        // It is a literal already, so nothing but its escapes can be wrong.
        let Ok(text) = serde_json::from_str(source).map(Zeroizing::<String>::new) else {
            return Some(Err(NotText));
        };
        room.clear();
        room.extend_from_slice(text.as_bytes());
    }
    Some(str::from_utf8(room).map_err(|_| NotText))
}

/// Unescapes the content of a JSON string literal; `false` if it has an escape by number.
///
/// In a body they are every few characters, which is what the JSON parser is slow at: where a body is not
/// plain, it would take half the time of decoding.
fn unescape(literal: &str, text: &mut Vec<u8>) -> bool {
    text.clear();
    text.reserve(literal.len());
    let mut bytes = literal.bytes();
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b'\\' => match bytes.next() {
                Some(same @ (b'"' | b'\\' | b'/')) => same,
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'r') => b'\r',
                Some(b'b') => b'\x08',
                Some(b'f') => b'\x0c',
                _ => return false,
            },
            other => other,
        });
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_literal_is_unescaped_as_the_parser_does(text in r#"[a-t"\\/\n\t\r\x08\x0cé\x01]{0,20}"#) {
            let literal = serde_json::to_string(&text).unwrap();
            let by_number = literal.contains("\\u");
            let mut unescaped = b"of the message before".to_vec();
            prop_assert_eq!(unescape(&literal[1..literal.len() - 1], &mut unescaped), !by_number);
            prop_assert!(by_number || unescaped == text.as_bytes());
        }
    }
}
