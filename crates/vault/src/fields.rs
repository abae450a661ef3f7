//! The fields of a body. An error names the field and the rule, and never repeats a value or an unknown name.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::problem::Problem;

/// The fields of a JSON object that were not taken yet.
pub(crate) struct Fields(Vec<(String, Value)>);

impl Fields {
    /// Reads a JSON object.
    ///
    /// # Errors
    ///
    /// The problem of a body that is something else.
    pub(crate) fn read(body: &[u8]) -> Result<Self, Problem> {
        // The parser's error is dropped: it quotes values.
        serde_json::from_slice(body).map_err(|_| Problem::bad_request("the body is not a JSON object"))
    }

    /// Whether a field is left.
    #[must_use]
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|(field, _)| field == name)
    }

    /// Takes a field with a text.
    ///
    /// # Errors
    ///
    /// The problem of a field that is missing, or has another type.
    pub(crate) fn text(&mut self, name: &'static str) -> Result<Zeroizing<String>, Problem> {
        match self.take(name)? {
            Some(Value::String(text)) => Ok(Zeroizing::new(text)),
            Some(_) => Err(Problem::bad_request(format!("the field {name} is not a string"))),
            None => Err(Problem::bad_request(format!("the field {name} is missing"))),
        }
    }

    /// Takes a field with a whole number, which is not negative, if it is there.
    ///
    /// # Errors
    ///
    /// The problem of a field of another type.
    pub(crate) fn number(&mut self, name: &'static str) -> Result<Option<u64>, Problem> {
        self.take(name)?
            .map(|value| {
                let problem = || Problem::bad_request(format!("the field {name} is not a whole number"));
                value.as_u64().ok_or_else(problem)
            })
            .transpose()
    }

    /// Takes a field with `true` or `false`, which is false if it is missing.
    ///
    /// # Errors
    ///
    /// The problem of a field of another type.
    pub(crate) fn flag(&mut self, name: &'static str) -> Result<bool, Problem> {
        match self.take(name)? {
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(Problem::bad_request(format!("the field {name} is neither true nor false"))),
            None => Ok(false),
        }
    }

    /// Checks that no other field is left. `known` lists the fields of the request.
    ///
    /// # Errors
    ///
    /// The problem of an unknown field.
    pub(crate) fn end(self, known: &'static str) -> Result<(), Problem> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Problem::bad_request(format!("the body has a field that is none of {known}")))
    }

    fn take(&mut self, name: &'static str) -> Result<Option<Value>, Problem> {
        let Some(position) = self.0.iter().position(|(field, _)| field == name) else { return Ok(None) };
        let (_, value) = self.0.swap_remove(position);
        if self.contains(name) {
            return Err(Problem::bad_request(format!("the field {name} occurs more than once")));
        }
        Ok(Some(value))
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fields").finish_non_exhaustive()
    }
}
