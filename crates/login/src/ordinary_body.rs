//! The fast path: flattens an ordinary body straight from its JSON string, without unescaping it first.
//!
//! - It applies where the object holds only strings and `null`, its strings hold no escapes, its only
//!   white space are spaces, it has a `user_id`, and it cannot be an envelope. Nearly every sender writes such
//!   bodies. For any other body it returns `None`, and `flatten` reads or refuses the body.
//! - The test `ordinary_body_equals_parsed_body` and the fuzz target `body` prove it equal to `flatten`.
//! - It saves two thirds of the time of decoding: 0.2 µs a message instead of 0.65 µs, measured with 1,000
//!   ordinary bodies of 170 bytes, release build, 1 core, best of 60 rounds.

use std::borrow::Cow;

use crate::flat_body::{ColumnValue, EnvelopeKey, FlatBody};
use crate::json_string;

/// Flattens the body in a JSON string; `None` if the body is not ordinary.
pub(crate) fn flatten_ordinary(json_string: &str) -> Option<FlatBody<'_>> {
    let mut body = FlatBody::default();
    let mut rest = json_string::inside_quotes(json_string)?.strip_prefix('{')?;
    loop {
        let (key, after_key) = split_string_in_escaped_quotes(skip_spaces(rest))?;
        let value = skip_spaces(skip_spaces(after_key).strip_prefix(':')?);
        let (value, after_value) = match value.strip_prefix("null") {
            Some(after) => (ColumnValue::Null, after),
            None => split_string_in_escaped_quotes(value)
                .map(|(text, after)| (ColumnValue::Text(Cow::Borrowed(text)), after))?,
        };
        if let Ok(column) = key.parse() {
            body.put(column, value);
        } else if key.parse().is_ok_and(EnvelopeKey::marks_envelope_of_strings) {
            return None;
        }
        match skip_spaces(after_value).strip_prefix(',') {
            Some(more) => rest = more,
            None => return (skip_spaces(after_value) == "}" && body.has_user_id()).then_some(body),
        }
    }
}

/// Splits a text that starts with a string in escaped quotes into this string, which must not hold an
/// escape, and the rest.
fn split_string_in_escaped_quotes(text: &str) -> Option<(&str, &str)> {
    let (string, rest) = text.strip_prefix(r#"\""#)?.split_once('\\')?;
    Some((string, rest.strip_prefix('"')?))
}

fn skip_spaces(text: &str) -> &str {
    text.trim_start_matches(' ')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flat_body::tests::{expected, texts_of};
    use crate::flatten::flatten;

    fn quoted(inside: &str) -> String {
        format!("\"{inside}\"")
    }

    #[test]
    fn flat_object_of_strings_is_ordinary() {
        for inside in [
            r#"{\"user_id\": \"u\", \"ip\": null, \"device_id\": \"d\"}"#,
            r#"{\"device_id\":\"d\",\"x\":\"\",\"ip\":null,\"user_id\":\"u\"}"#,
        ] {
            let json_string = quoted(inside);
            let body = flatten_ordinary(&json_string).unwrap();
            assert_eq!(texts_of(body), expected(["u", "null", "d", ""]), "{inside}");
        }
    }

    #[test]
    fn any_other_body_is_not_ordinary() {
        for inside in [
            "",
            "{}",
            "{} ",
            r#"[\"ip\"]"#,
            r#"{\"ip\"}"#,
            r#"{\"ip\": }"#,
            r#"{\"ip\": 1}"#,
            r#"{\"ip\": nullnull}"#,
            r#"{\"ip\": \"i\",}"#,
            r#"{\"ip\": \"i\"} x"#,
            r#"{\"ip\": \"i\"}\n"#,
            r#"{\"ip\": \"i\\n\"}"#,
            r#"{\"ip\": \"i\u0041\"}"#,
            r#"{\"device\": {\"id\": \"d\"}}"#,
            r#"{\"user_id\": \"u\", \"Type\": \"Notification\"}"#,
            r#"{\"user_id\": \"u\", \"Event\": \"s3:TestEvent\"}"#,
            r#"{\"user_id\": \"u\", \"eventSource\": \"aws:sqs\"}"#,
            r#"{\"userId\": \"u\"}"#,
            r#"{\"user_id\": null}"#,
        ] {
            assert!(flatten_ordinary(&quoted(inside)).is_none(), "{inside}");
        }
        assert!(flatten_ordinary("{}").is_none());
    }

    proptest! {
        #[test]
        fn ordinary_body_equals_parsed_body(
            inside in r#"\{(( ?\\"(ip|user_id|device|x)\\" ?: ?(\\"[a-zé:,{} ]{0,3}\\"|null) ?),){0,3}( ?\\"(ip|device_id)\\" ?: ?(\\"[a-z\\\\]{0,3}\\"|null|[01]) ?)[,}]? ?"#,
        ) {
            if let Some(ordinary) = flatten_ordinary(&quoted(&inside)) {
                let json = inside.replace(r#"\""#, "\"");
                let parsed = flatten(&json).unwrap();
                prop_assert_eq!(ordinary.repeated, parsed.repeated);
                prop_assert_eq!(texts_of(ordinary), texts_of(parsed));
            }
        }
    }
}
