//! Flattens a nested JSON object to the columns that are wanted, in the same pass as parsing.
//!
//! Nested keys are joined with `_`, so `{"device":{"id":"x"}}` holds the column `device_id`.
//! Whatever leads to no wanted column is skipped where it stands, at any depth, unread.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// What a wanted column holds.
#[expect(missing_debug_implementations, reason = "the text is personal data")]
pub enum Leaf<'a> {
    /// JSON's `null`.
    Null,
    /// A string, unescaped; borrowed where there was nothing to unescape.
    Text(Cow<'a, str>),
    /// Something else, of this JSON type.
    Other(JsonType),
}

/// A JSON type that is not a string or `null`, as an error names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonType {
    /// `true` or `false`.
    Boolean,
    /// A number, whatever its size.
    Number,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// The wanted columns of one object, and the top-level values that were asked for unparsed.
#[expect(missing_debug_implementations, reason = "the leaves are personal data")]
pub struct Flat<'a, const COLUMNS: usize, const RAW: usize> {
    /// The leaf of each column, or `None` where the object does not have it.
    pub leaves: [Option<Leaf<'a>>; COLUMNS],
    /// The JSON source of each of the top-level keys asked for.
    pub raw: [Option<&'a RawValue>; RAW],
    /// The index of a column that the object spells more than once.
    pub repeated: Option<usize>,
}

/// Flattens the object that is all of `json`.
///
/// `columns` are flat keys; `raw` are top-level keys whose values are kept as JSON source.
///
/// # Errors
///
/// The parser's own, if `json` is not one object. Its text may quote a value: use its line and
/// column, and nothing else.
pub fn flatten<'a, const COLUMNS: usize, const RAW: usize>(
    json: &'a str,
    columns: &[&str; COLUMNS],
    raw: &[&str; RAW],
) -> serde_json::Result<Flat<'a, COLUMNS, RAW>> {
    let mut flat = Flat::default();
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let walk = Walk { columns: columns.map(Some), raw, flat: &mut flat };
    deserializer.deserialize_map(walk)?;
    deserializer.end()?;
    Ok(flat)
}

/// Flattens an object from inside the string literal that it was escaped for, if it is one as nearly
/// every sender writes it: no value but `null` and strings, nothing escaped but the quotes around
/// strings, no other blanks than spaces. `None` for any other, whatever is wrong with it, and where it
/// has one of the keys in `raw`.
///
/// What it does, [`flatten`] does too, but only after the literal was copied without its escapes; this
/// took a third of the time of decoding.
#[must_use]
pub fn flatten_plain<'a, const COLUMNS: usize, const RAW: usize>(
    literal: &'a str,
    columns: &[&str; COLUMNS],
    raw: &[&str; RAW],
) -> Option<Flat<'a, COLUMNS, RAW>> {
    let mut flat = Flat::default();
    let mut rest = literal.strip_prefix('{')?;
    loop {
        let (key, after) = quoted(spaced(rest))?;
        let value = spaced(spaced(after).strip_prefix(':')?);
        let (leaf, after) = match value.strip_prefix("null") {
            Some(after) => (Leaf::Null, after),
            None => quoted(value).map(|(text, after)| (Leaf::Text(Cow::Borrowed(text)), after))?,
        };
        if let Some(column) = columns.iter().position(|column| *column == key) {
            flat.put(column, leaf);
        } else if raw.contains(&key) {
            return None;
        }
        match spaced(after).strip_prefix(',') {
            Some(more) => rest = more,
            None => return (spaced(after) == "}").then_some(flat),
        }
    }
}

/// The string at the beginning, whose quotes are escaped and nothing in it is, and what comes after it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let (content, after) = text.strip_prefix(r#"\""#)?.split_once('\\')?;
    Some((content, after.strip_prefix('"')?))
}

fn spaced(text: &str) -> &str {
    text.trim_start_matches(' ')
}

impl<'a, const COLUMNS: usize, const RAW: usize> Flat<'a, COLUMNS, RAW> {
    fn put(&mut self, column: usize, leaf: Leaf<'a>) {
        if self.leaves[column].replace(leaf).is_some() {
            self.repeated = Some(column);
        }
    }
}

impl<const COLUMNS: usize, const RAW: usize> Default for Flat<'_, COLUMNS, RAW> {
    fn default() -> Self {
        Self { leaves: [const { None }; COLUMNS], raw: [None; RAW], repeated: None }
    }
}

impl fmt::Display for JsonType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::Array => "an array",
            Self::Object => "an object",
        })
    }
}

/// Walks one object, the outermost or one inside it.
struct Walk<'s, 'a, const COLUMNS: usize, const RAW: usize> {
    /// What is left of each column's key inside this object; `None` of those that are not in it.
    columns: [Option<&'s str>; COLUMNS],
    /// The keys whose values are kept as JSON source.
    raw: &'s [&'s str],
    flat: &'s mut Flat<'a, COLUMNS, RAW>,
}

/// Where a key leads.
enum Lead<'s, const COLUMNS: usize> {
    Column(usize),
    Raw(usize),
    /// Towards columns, of whose keys this is left.
    Deeper([Option<&'s str>; COLUMNS]),
    Nowhere,
}

impl<'s, const COLUMNS: usize, const RAW: usize> Walk<'s, '_, COLUMNS, RAW> {
    fn lead(&self, key: &str) -> Lead<'s, COLUMNS> {
        if let Some(column) = self.columns.iter().position(|column| *column == Some(key)) {
            return Lead::Column(column);
        }
        if let Some(raw) = self.raw.iter().position(|raw| *raw == key) {
            return Lead::Raw(raw);
        }
        let inside = self.columns.map(|column| column?.strip_prefix(key)?.strip_prefix('_'));
        if inside.iter().any(Option::is_some) { Lead::Deeper(inside) } else { Lead::Nowhere }
    }
}

impl<'de, const COLUMNS: usize, const RAW: usize> Visitor<'de> for Walk<'_, 'de, COLUMNS, RAW> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(lead) = map.next_key_seed(Key(&self))? {
            match lead {
                Lead::Column(column) => {
                    let leaf = map.next_value()?;
                    self.flat.put(column, leaf);
                }
                Lead::Raw(raw) => self.flat.raw[raw] = Some(map.next_value()?),
                Lead::Deeper(columns) => {
                    map.next_value_seed(Inside(Walk { columns, raw: &[], flat: self.flat }))?;
                }
                Lead::Nowhere => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

/// A key, read without a copy.
struct Key<'k, 's, 'a, const COLUMNS: usize, const RAW: usize>(&'k Walk<'s, 'a, COLUMNS, RAW>);

impl<'de, 's, const COLUMNS: usize, const RAW: usize> DeserializeSeed<'de>
    for Key<'_, 's, 'de, COLUMNS, RAW>
{
    type Value = Lead<'s, COLUMNS>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'s, const COLUMNS: usize, const RAW: usize> Visitor<'_> for Key<'_, 's, '_, COLUMNS, RAW> {
    type Value = Lead<'s, COLUMNS>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.lead(key))
    }
}

/// The value of a key on the way to a column: an object is walked, anything else leads nowhere.
struct Inside<'s, 'a, const COLUMNS: usize, const RAW: usize>(Walk<'s, 'a, COLUMNS, RAW>);

impl<'de, const COLUMNS: usize, const RAW: usize> DeserializeSeed<'de> for Inside<'_, 'de, COLUMNS, RAW> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, const COLUMNS: usize, const RAW: usize> Visitor<'de> for Inside<'_, 'de, COLUMNS, RAW> {
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

impl<'de> Deserialize<'de> for Leaf<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LeafVisitor)
    }
}

struct LeafVisitor;

impl<'de> Visitor<'de> for LeafVisitor {
    type Value = Leaf<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Leaf<'de>, E> {
        Ok(Leaf::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Leaf<'de>, E> {
        Ok(Leaf::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Leaf<'de>, E> {
        Ok(Leaf::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Leaf<'de>, E> {
        Ok(Leaf::Other(JsonType::Boolean))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Leaf<'de>, E> {
        Ok(Leaf::Other(JsonType::Number))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Leaf<'de>, E> {
        Ok(Leaf::Other(JsonType::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Leaf<'de>, E> {
        Ok(Leaf::Other(JsonType::Number))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Leaf<'de>, A::Error> {
        IgnoredAny.visit_seq(seq).map(|_| Leaf::Other(JsonType::Array))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Leaf<'de>, A::Error> {
        IgnoredAny.visit_map(map).map(|_| Leaf::Other(JsonType::Object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const COLUMNS: [&str; 4] = ["user_id", "ip", "device_id", "device_type"];

    /// The leaves as plain texts, `null` for what is there and null.
    fn texts(json: &str) -> serde_json::Result<[Option<String>; 4]> {
        Ok(spelt(&flatten(json, &COLUMNS, &[])?))
    }

    fn spelt<const RAW: usize>(flat: &Flat<'_, 4, RAW>) -> [Option<String>; 4] {
        flat.leaves.each_ref().map(|leaf| {
            leaf.as_ref().map(|leaf| match leaf {
                Leaf::Null => "null".to_owned(),
                Leaf::Text(text) => text.to_string(),
                Leaf::Other(found) => found.to_string(),
            })
        })
    }

    fn some(texts: [&str; 4]) -> [Option<String>; 4] {
        texts.map(|text| (!text.is_empty()).then(|| text.to_owned()))
    }

    #[test]
    fn nested_keys_are_joined() {
        let nested = r#"{"device": {"id": "d", "type": "t"}, "user": {"id": "u"}, "ip": "i"}"#;

        assert_eq!(texts(nested).unwrap(), some(["u", "i", "d", "t"]));
    }

    #[test]
    fn what_leads_to_no_column_is_skipped_whatever_it_is() {
        for value in
            ["1e999", "[1, [2]]", r#"{"ip": "no"}"#, r#""\ud800""#, "true", "null", r#"{"": {"id": 1}}"#]
        {
            for key in ["x", "device", "device_i", "ip_", "", "_ip"] {
                // On the way to a column a value is read, and these two cannot be.
                if key == "device" && (value == "1e999" || value == r#""\ud800""#) {
                    continue;
                }
                let json = format!(r#"{{"{key}": {value}, "user_id": "u"}}"#);
                assert_eq!(texts(&json).unwrap(), some(["u", "", "", ""]), "{json}");
            }
        }
    }

    #[test]
    fn a_column_spelt_twice_is_noticed() {
        for json in [
            r#"{"ip": "a", "ip": "a"}"#,
            r#"{"device_id": null, "device": {"id": "a"}}"#,
            r#"{"device": {"id": "a"}, "device": {"id": "b"}}"#,
            r#"{"device": {"id": "a", "id": "b"}}"#,
        ] {
            assert!(flatten(json, &COLUMNS, &[]).unwrap().repeated.is_some(), "{json}");
        }
        let once = r#"{"device": {"id": "a"}, "device": {"type": "b"}}"#;
        assert!(flatten(once, &COLUMNS, &[]).unwrap().repeated.is_none());
    }

    #[test]
    fn raw_values_are_those_at_the_top() {
        let json = r#"{"detail": {"a" : 1}, "x": {"detail": 2}}"#;

        let flat = flatten(json, &["user_id"], &["detail"]).unwrap();

        assert_eq!(flat.raw[0].map(RawValue::get), Some(r#"{"a" : 1}"#));
    }

    #[test]
    fn depth_does_not_matter() {
        let deep = format!(r#"{{"x": {}{}, "user_id": "u"}}"#, "[".repeat(100_000), "]".repeat(100_000));

        assert_eq!(texts(&deep).unwrap(), some(["u", "", "", ""]));
    }

    #[test]
    fn an_object_as_senders_write_it_is_plain() {
        for literal in [
            r#"{\"user_id\": \"u\", \"ip\": null, \"device_id\": \"d\"}"#,
            r#"{\"device_id\":\"d\",\"x\":\"\",\"ip\":null,\"user_id\":\"u\"}"#,
        ] {
            let flat = flatten_plain(literal, &COLUMNS, &["Type"]).unwrap();
            assert_eq!(spelt(&flat), some(["u", "null", "d", ""]), "{literal}");
        }
    }

    #[test]
    fn what_else_there_may_be_is_not_plain() {
        for literal in [
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
            r#"{\"Type\": \"Notification\"}"#,
        ] {
            assert!(flatten_plain(literal, &COLUMNS, &["Type"]).is_none(), "{literal}");
        }
    }

    proptest! {
        /// What is plain is what the parser reads too, and as that.
        #[test]
        fn plain_is_the_same(
            literal in r#"\{(( ?\\"(ip|user_id|device|x)\\" ?: ?(\\"[a-zé:,{} ]{0,3}\\"|null) ?),){0,3}( ?\\"(ip|device_id)\\" ?: ?(\\"[a-z\\\\]{0,3}\\"|null|[01]) ?)[,}]? ?"#,
        ) {
            if let Some(plain) = flatten_plain(&literal, &COLUMNS, &[]) {
                let json = literal.replace(r#"\""#, "\"");
                let parsed = flatten(&json, &COLUMNS, &[]).unwrap();
                prop_assert_eq!(spelt(&plain), spelt(&parsed));
                prop_assert_eq!(plain.repeated, parsed.repeated);
            }
        }

        /// However an object is nested, its columns are those of the object spelt flat.
        #[test]
        fn nesting_changes_nothing(values in proptest::array::uniform4(".{1,9}"), nest in any::<[bool; 3]>()) {
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

        /// It takes and refuses what the parser itself does, give or take what it need not read.
        #[test]
        fn any_text_is_taken_as_json_or_refused(text in r#"[\[\]{}":,a-z0-9\\. ]{0,40}"#) {
            let parsed = serde_json::from_str::<Value>(&text);
            if parsed.is_ok_and(|value| value.is_object()) {
                prop_assert!(texts(&text).is_ok());
            }
        }
    }
}
