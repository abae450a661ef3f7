//! Reads the log lines that the functions wrote themselves.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_cloudwatchlogs::error::ProvideErrorMetadata;
use serde::{Deserialize, Serialize};

use crate::aws;
use crate::error::Error;
use crate::stack::Stack;

/// A line of a function: only those of its fields that the commands show. docs/operations.md explains each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct LogLine {
    pub timestamp: String,
    /// What happened.
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// A function of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Ingest,
    Migrate,
}

impl Function {
    /// Returns the outputs of the stack that name the function and its log group.
    fn outputs(self) -> (&'static str, &'static str) {
        match self {
            Self::Ingest => ("FunctionName", "LogGroupName"),
            Self::Migrate => ("MigrateFunctionName", "MigrateLogGroupName"),
        }
    }
}

impl LogLine {
    /// Reads a line. `None` if it is not a line with this `message`: it may be the platform's or a library's, and quote
    /// anything.
    fn parse(text: &str, message: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|line: &Self| line.message == message)
    }
}

/// Reads the lines of a function that say that `message` happened, the oldest first.
pub(crate) async fn read(
    stack: &Stack,
    function: Function,
    message: &str,
    since: SystemTime,
) -> Result<Vec<LogLine>, Error> {
    let (name, group) = function.outputs();
    let mut lines = read_group(stack, stack.output(group)?, message, since).await?;
    // LocalStack ignores the group that the template names. On AWS this group does not exist, and the caller may lack
    // the right to read it.
    let default_group = format!("/aws/lambda/{}", stack.output(name)?);
    match read_group(stack, &default_group, message, since).await {
        Err(Error::Denied(_)) => {}
        others => lines.extend(others?),
    }
    lines.sort_by(|one: &LogLine, other| one.timestamp.cmp(&other.timestamp));
    Ok(lines)
}

/// Reads the lines of a group; a group that does not exist has none.
async fn read_group(
    stack: &Stack,
    group: &str,
    message: &str,
    since: SystemTime,
) -> Result<Vec<LogLine>, Error> {
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let request = stack
        .aws
        .logs()
        .filter_log_events()
        .log_group_name(group)
        .start_time(i64::try_from(since).unwrap_or(i64::MAX))
        .filter_pattern(format!("\"{message}\""));
    let mut pages = request.into_paginator().send();
    let mut lines = Vec::new();
    while let Some(page) = pages.next().await {
        let page = match page {
            Ok(page) => page,
            Err(error) if error.code() == Some("ResourceNotFoundException") => break,
            Err(error) => return Err(aws::failure("FilterLogEvents", &error)),
        };
        let texts = page.events().iter().filter_map(|event| event.message());
        lines.extend(texts.filter_map(|text| LogLine::parse(text, message)));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_lines_are_dropped() {
        let texts = [
            r#"{"timestamp":"1","message":"message failed","message_id":"m","body":"203.0.113.7"}"#,
            r#"{"timestamp":"1","message":"a login with message failed in it"}"#,
            r#"{"type":"platform.report","record":{"message":"message failed"}}"#,
            "message failed: 203.0.113.7",
            "[]",
        ];

        let lines: Vec<_> = texts.iter().filter_map(|text| LogLine::parse(text, "message failed")).collect();

        let expected = LogLine {
            timestamp: "1".into(),
            message: "message failed".into(),
            message_id: Some("m".into()),
            ..LogLine::default()
        };
        assert_eq!(lines, [expected]);
    }
}
