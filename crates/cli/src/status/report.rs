//! The report: a line for each part of the stack, and what to do about the parts that are not well.

use std::fmt;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;

use crate::error::Error;

/// How a part of the stack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Well,
    NotWell,
    /// The part could not be read.
    Unknown,
}

/// A part of the stack.
#[derive(Debug, Serialize)]
pub(crate) struct Part {
    /// The name, which scripts look for.
    #[serde(skip)]
    name: &'static str,
    state: State,
    /// The state in words.
    text: String,
    /// The section that says what to do, with its document.
    runbook: &'static str,
    /// What was read, for programs.
    #[serde(flatten)]
    values: Value,
}

/// All parts of a stack.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) stack: String,
    pub(crate) region: String,
    pub(crate) parts: Vec<Part>,
}

impl Part {
    /// Makes a part that was read: `values` is an object.
    pub(crate) fn new(
        name: &'static str,
        runbook: &'static str,
        is_well: bool,
        text: String,
        values: Value,
    ) -> Self {
        let state = if is_well { State::Well } else { State::NotWell };
        Self { name, state, text, runbook, values }
    }

    /// Makes a part that could not be read.
    pub(crate) fn unknown(name: &'static str, runbook: &'static str, error: &Error) -> Self {
        let values = Value::Object(serde_json::Map::new());
        Self { name, state: State::Unknown, text: error.to_string(), runbook, values }
    }
}

impl Report {
    /// Returns the state of the whole: well only if every part is.
    pub(crate) fn state(&self) -> State {
        let worst = |state| self.parts.iter().any(|part| part.state == state);
        if worst(State::NotWell) {
            State::NotWell
        } else if worst(State::Unknown) {
            State::Unknown
        } else {
            State::Well
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Well => "well",
            Self::NotWell => "NOT WELL",
            Self::Unknown => "UNKNOWN",
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}: {}", self.stack, self.region, self.state())?;
        for Part { name, state, text, .. } in &self.parts {
            write!(f, "\n  {name:<13} {state:<9} {text}")?;
        }
        let mut heading = "\n\nWhat to do next:";
        for part in self.parts.iter().filter(|part| part.state != State::Well) {
            write!(f, "{heading}\n  {:<13} {}", part.name, part.runbook)?;
            heading = "";
        }
        Ok(())
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("stack", &self.stack)?;
        map.serialize_entry("region", &self.region)?;
        map.serialize_entry("state", &self.state())?;
        for part in &self.parts {
            map.serialize_entry(&part.name.replace(' ', "_"), part)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(parts: Vec<Part>) -> Report {
        Report { stack: "login-etl-prod".to_owned(), region: "eu-central-1".to_owned(), parts }
    }

    fn well() -> Part {
        Part::new("queue", "docs/operations.md#alarms", true, "0 waiting".to_owned(), json!({ "waiting": 0 }))
    }

    fn bad() -> Part {
        let values = json!({ "messages": 2 });
        Part::new(
            "dead letters",
            "docs/operations.md#redrive-dead-letters",
            false,
            "2 messages".to_owned(),
            values,
        )
    }

    fn unknown() -> Part {
        Part::unknown(
            "schema",
            "docs/operations.md#run-migrate",
            &Error::Failed("Postgres cannot be reached".to_owned()),
        )
    }

    #[test]
    fn every_part_counts() {
        let states = [vec![well()], vec![well(), unknown()], vec![unknown(), bad(), well()]]
            .map(|parts| report(parts).state());

        assert_eq!(states, [State::Well, State::Unknown, State::NotWell]);
    }

    #[test]
    fn parts_that_are_not_well_name_the_runbook() {
        let text = report(vec![well(), bad(), unknown()]).to_string();

        assert_eq!(
            text,
            "login-etl-prod in eu-central-1: NOT WELL
  queue         well      0 waiting
  dead letters  NOT WELL  2 messages
  schema        UNKNOWN   Postgres cannot be reached

What to do next:
  dead letters  docs/operations.md#redrive-dead-letters
  schema        docs/operations.md#run-migrate"
        );
    }

    #[test]
    fn json_has_the_values() {
        let json = serde_json::to_value(report(vec![bad()])).unwrap();

        assert_eq!(
            json,
            json!({
                "stack": "login-etl-prod",
                "region": "eu-central-1",
                "state": "not_well",
                "dead_letters": {
                    "state": "not_well",
                    "text": "2 messages",
                    "runbook": "docs/operations.md#redrive-dead-letters",
                    "messages": 2
                }
            })
        );
    }
}
