//! A body as flat columns.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use strum::EnumCount;

/// A column of a login, which is also the flat key of a body.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    strum::Display,
    strum::EnumCount,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "each is named for its key")]
pub enum Column {
    UserId,
    AppVersion,
    DeviceType,
    Ip,
    Locale,
    DeviceId,
}

/// A top-level key by which an envelope is recognised, or which holds its content.
#[derive(Clone, Copy, PartialEq, Eq, strum::EnumString)]
#[strum(serialize_all = "camelCase")]
pub(crate) enum EnvelopeKey {
    #[strum(serialize = "Type")]
    Type,
    #[strum(serialize = "Message")]
    Message,
    #[strum(serialize = "Token")]
    Token,
    #[strum(serialize = "TopicArn")]
    TopicArn,
    Source,
    #[strum(serialize = "detail-type")]
    DetailType,
    Detail,
    /// Records of SNS events have a capital letter.
    #[strum(serialize = "eventSource", serialize = "EventSource")]
    EventSource,
    MessageId,
    ReceiptHandle,
    Body,
    Data,
    Dynamodb,
    Topic,
    RequestContext,
    IsBase64Encoded,
    #[strum(serialize = "Records")]
    Records,
    #[strum(serialize = "Event")]
    Event,
    #[strum(serialize = "Service")]
    Service,
    S3BucketName,
    S3Key,
}

/// The value of a column.
pub(crate) enum ColumnValue<'a> {
    Null,
    /// A string, unescaped; borrowed where it has no escapes.
    Text(Cow<'a, str>),
    /// Any other JSON type.
    Other(JsonType),
}

/// A JSON type that is neither a string nor `null`, as an error names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "JSON's own names")]
pub enum JsonType {
    Boolean,
    Number,
    Array,
    Object,
}

/// The columns and the envelope keys of one JSON object.
#[derive(Default)]
pub(crate) struct FlatBody<'a> {
    columns: [Option<ColumnValue<'a>>; Column::COUNT],
    /// Empty for nearly every body: an empty `Vec` costs the fast path no allocation.
    envelope_values: Vec<(EnvelopeKey, &'a RawValue)>,
    /// A column that the object has more than once.
    pub(crate) repeated: Option<Column>,
    pub(crate) repeats_envelope_key: bool,
    /// Whether a top-level key is `user_id` in another spelling, such as `userId`.
    pub(crate) has_misspelt_user_id: bool,
}

impl EnvelopeKey {
    /// Whether an envelope in which every value is a string or null may have this key. Each such envelope has
    /// one of these keys.
    pub(crate) fn marks_envelope_of_strings(self) -> bool {
        matches!(self, Self::Type | Self::Event | Self::EventSource)
    }
}

impl<'a> FlatBody<'a> {
    /// Takes the value of a column; `None` where the object does not have the column.
    pub(crate) fn take(&mut self, column: Column) -> Option<ColumnValue<'a>> {
        self.columns[column as usize].take()
    }

    /// Whether the object has a column, even if its value is null.
    pub(crate) fn has_columns(&self) -> bool {
        self.columns.iter().any(Option::is_some)
    }

    /// Whether `user_id` is a string.
    pub(crate) fn has_user_id(&self) -> bool {
        matches!(self.columns[Column::UserId as usize], Some(ColumnValue::Text(_)))
    }

    pub(crate) fn has_envelope_keys(&self) -> bool {
        !self.envelope_values.is_empty()
    }

    /// Adds the JSON source of an envelope key's value, and notes a key that occurs twice.
    pub(crate) fn put_envelope_value(&mut self, key: EnvelopeKey, value: &'a RawValue) {
        self.repeats_envelope_key |= self.envelope_value(key).is_some();
        self.envelope_values.push((key, value));
    }

    /// Returns the JSON source of an envelope key's value, the last value if the key occurs twice.
    pub(crate) fn envelope_value(&self, key: EnvelopeKey) -> Option<&'a str> {
        let values = self.envelope_values.iter();
        values.rev().find(|(other, _)| *other == key).map(|(_, value)| value.get())
    }

    /// Sets the value of a column, and notes a column that is set twice.
    pub(crate) fn put(&mut self, column: Column, value: ColumnValue<'a>) {
        if self.columns[column as usize].replace(value).is_some() {
            self.repeated = Some(column);
        }
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

impl<'de> Deserialize<'de> for ColumnValue<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ColumnValueVisitor)
    }
}

struct ColumnValueVisitor;

impl<'de> Visitor<'de> for ColumnValueVisitor {
    type Value = ColumnValue<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<ColumnValue<'de>, E> {
        Ok(ColumnValue::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<ColumnValue<'de>, E> {
        Ok(ColumnValue::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<ColumnValue<'de>, E> {
        Ok(ColumnValue::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<ColumnValue<'de>, E> {
        Ok(ColumnValue::Other(JsonType::Boolean))
    }

    fn visit_i64<E>(self, _: i64) -> Result<ColumnValue<'de>, E> {
        Ok(ColumnValue::Other(JsonType::Number))
    }

    fn visit_u64<E>(self, _: u64) -> Result<ColumnValue<'de>, E> {
        Ok(ColumnValue::Other(JsonType::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<ColumnValue<'de>, E> {
        Ok(ColumnValue::Other(JsonType::Number))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<ColumnValue<'de>, A::Error> {
        IgnoredAny.visit_seq(seq).map(|_| ColumnValue::Other(JsonType::Array))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ColumnValue<'de>, A::Error> {
        IgnoredAny.visit_map(map).map(|_| ColumnValue::Other(JsonType::Object))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The values of `user_id`, `ip`, `device_id` and `device_type` as texts; `null` for a null.
    pub(crate) type Texts = [Option<String>; 4];

    pub(crate) fn texts_of(mut body: FlatBody<'_>) -> Texts {
        [Column::UserId, Column::Ip, Column::DeviceId, Column::DeviceType].map(|column| {
            body.take(column).map(|value| match value {
                ColumnValue::Null => "null".to_owned(),
                ColumnValue::Text(text) => text.into_owned(),
                ColumnValue::Other(found) => found.to_string(),
            })
        })
    }

    /// An empty text stands for an absent column.
    pub(crate) fn expected(texts: [&str; 4]) -> Texts {
        texts.map(|text| (!text.is_empty()).then(|| text.to_owned()))
    }
}
