//! Flattens the JSON object of a body to the columns of a login, in the same pass as parsing.
//!
//! Nested keys are joined with `_`, so `{"device":{"id":"x"}}` holds the column `device_id`. A key that
//! leads to no column is skipped with its value, at any depth.

use std::array;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use strum::{EnumCount, VariantArray};

use crate::flat_body::{Column, EnvelopeKey, FlatBody};

/// Flattens the object that is all of `json`.
///
/// # Errors
///
/// The parser's error, if `json` is not one object. Its text may quote a value: use only its line and
/// column.
pub(crate) fn flatten(json: &str) -> serde_json::Result<FlatBody<'_>> {
    let mut body = FlatBody::default();
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let suffixes = array::from_fn(|index| Some(Column::VARIANTS[index].into()));
    deserializer.deserialize_map(ObjectVisitor { suffixes, is_top: true, body: &mut body })?;
    deserializer.end()?;
    Ok(body)
}

/// For each column: the part of its name that must still follow inside this object; `None` if the column
/// cannot be inside.
type KeySuffixes = [Option<&'static str>; Column::COUNT];

/// Visits one object: the outermost, or one nested in it.
struct ObjectVisitor<'b, 'a> {
    suffixes: KeySuffixes,
    /// Whether this is the outermost object, whose envelope keys count.
    is_top: bool,
    body: &'b mut FlatBody<'a>,
}

/// Where a key leads.
enum KeyTarget {
    Column(Column),
    Envelope(EnvelopeKey),
    /// To an object that may hold columns.
    Nested(KeySuffixes),
    /// Nowhere, but the sender most likely meant `user_id`.
    UserIdSpeltOtherwise,
    Nowhere,
}

impl ObjectVisitor<'_, '_> {
    fn target(&self, key: &str) -> KeyTarget {
        if let Some(column) = self.suffixes.iter().position(|suffix| *suffix == Some(key)) {
            return KeyTarget::Column(Column::VARIANTS[column]);
        }
        if self.is_top
            && let Ok(envelope_key) = key.parse()
        {
            return KeyTarget::Envelope(envelope_key);
        }
        let nested = self.suffixes.map(|suffix| suffix?.strip_prefix(key)?.strip_prefix('_'));
        if nested.iter().any(Option::is_some) {
            KeyTarget::Nested(nested)
        } else if self.is_top && is_user_id_spelt_otherwise(key) {
            KeyTarget::UserIdSpeltOtherwise
        } else {
            KeyTarget::Nowhere
        }
    }
}

/// Whether a key that is not `user_id` differs from it only in case and separators: `userId`, `USER-ID`, `userid`.
fn is_user_id_spelt_otherwise(key: &str) -> bool {
    let letters = key.bytes().filter(|byte| !matches!(byte, b'_' | b'-' | b'.' | b' '));
    letters.map(|letter| letter.to_ascii_lowercase()).eq(*b"userid")
}

impl<'de> Visitor<'de> for ObjectVisitor<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(target) = map.next_key_seed(KeySeed(&self))? {
            match target {
                KeyTarget::Column(column) => {
                    let value = map.next_value()?;
                    self.body.put(column, value);
                }
                KeyTarget::Envelope(key) => self.body.put_envelope_value(key, map.next_value()?),
                KeyTarget::Nested(suffixes) => {
                    let nested = ObjectVisitor { suffixes, is_top: false, body: self.body };
                    map.next_value_seed(NestedValue(nested))?;
                }
                KeyTarget::UserIdSpeltOtherwise => {
                    self.body.has_misspelt_user_id = true;
                    map.next_value::<IgnoredAny>()?;
                }
                KeyTarget::Nowhere => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

/// Reads a key without copying it.
struct KeySeed<'v, 'b, 'a>(&'v ObjectVisitor<'b, 'a>);

impl<'de> DeserializeSeed<'de> for KeySeed<'_, '_, '_> {
    type Value = KeyTarget;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<KeyTarget, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_, '_, '_> {
    type Value = KeyTarget;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<KeyTarget, E> {
        Ok(self.0.target(key))
    }
}

/// The value of a key that may lead to columns: an object is visited, any other value is skipped.
struct NestedValue<'b, 'a>(ObjectVisitor<'b, 'a>);

impl<'de> DeserializeSeed<'de> for NestedValue<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NestedValue<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.0.visit_map(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        IgnoredAny.visit_seq(seq).map(drop)
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::flat_body::tests::{Texts, expected, texts_of};

    fn texts(json: &str) -> serde_json::Result<Texts> {
        Ok(texts_of(flatten(json)?))
    }

    #[test]
    fn nested_keys_are_joined() {
        let nested = r#"{"device": {"id": "d", "type": "t"}, "user": {"id": "u"}, "ip": "i"}"#;

        assert_eq!(texts(nested).unwrap(), expected(["u", "i", "d", "t"]));
    }

    #[test]
    fn unknown_keys_are_skipped() {
        for value in
            ["1e999", "[1, [2]]", r#"{"ip": "no"}"#, r#""\ud800""#, "true", "null", r#"{"": {"id": 1}}"#]
        {
            for key in ["x", "device", "device_i", "ip_", "", "_ip"] {
                // The value of a key that may lead to columns is parsed, and these two are not valid.
                if key == "device" && (value == "1e999" || value == r#""\ud800""#) {
                    continue;
                }
                let json = format!(r#"{{"{key}": {value}, "user_id": "u"}}"#);
                assert_eq!(texts(&json).unwrap(), expected(["u", "", "", ""]), "{json}");
            }
        }
    }

    #[test]
    fn repeated_column_is_reported() {
        for (json, column) in [
            (r#"{"ip": "a", "ip": "a"}"#, Column::Ip),
            (r#"{"device_id": null, "device": {"id": "a"}}"#, Column::DeviceId),
            (r#"{"device": {"id": "a"}, "device": {"id": "b"}}"#, Column::DeviceId),
            (r#"{"device": {"id": "a", "id": "b"}}"#, Column::DeviceId),
        ] {
            assert_eq!(flatten(json).unwrap().repeated, Some(column), "{json}");
        }
        let once = r#"{"device": {"id": "a"}, "device": {"type": "b"}}"#;
        assert_eq!(flatten(once).unwrap().repeated, None);
    }

    #[test]
    fn envelope_keys_count_only_at_the_top() {
        let json = r#"{"detail": {"a" : 1}, "device": {"detail": 2}}"#;

        let body = flatten(json).unwrap();

        assert_eq!(body.envelope_value(EnvelopeKey::Detail), Some(r#"{"a" : 1}"#));
    }

    #[test]
    fn deep_nesting_is_skipped() {
        let deep = format!(r#"{{"x": {}{}, "user_id": "u"}}"#, "[".repeat(100_000), "]".repeat(100_000));

        assert_eq!(texts(&deep).unwrap(), expected(["u", "", "", ""]));
    }

    proptest! {
        #[test]
        fn nested_body_equals_flat_body(values in proptest::array::uniform4(".{1,9}"), nest in any::<[bool; 3]>()) {
            let [user_id, ip, device_id, device_type] = &values;
            let mut body = json!({ "ip": ip });
            let mut put = |nested: bool, outer: &str, inner: &str, value: &String| {
                if nested {
                    if body[outer].is_null() {
                        body[outer] = json!({});
                    }
                    body[outer][inner] = json!(value);
                } else {
                    body[format!("{outer}_{inner}")] = json!(value);
                }
            };
            put(nest[0], "user", "id", user_id);
            put(nest[1], "device", "id", device_id);
            put(nest[2], "device", "type", device_type);

            prop_assert_eq!(texts(&body.to_string()).unwrap(), values.map(Some));
        }

        #[test]
        fn every_json_object_is_accepted(text in r#"[\[\]{}":,a-z0-9\\. ]{0,40}"#) {
            let parsed = serde_json::from_str::<serde_json::Value>(&text);
            if parsed.is_ok_and(|value| value.is_object()) {
                prop_assert!(texts(&text).is_ok());
            }
        }
    }
}
