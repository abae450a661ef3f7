//! `login-etl logs --failed`: the runbook's queries for messages, batches and starts that failed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde::Serialize;

use crate::error::{Error, Outcome};
use crate::log_lines::{self, Function, LogLine};
use crate::output::{Printer, table};
use crate::stack::Stack;

/// The events that mean a failure, as docs/operations.md lists them.
const FAILURES: [(Function, &str); 8] = [
    (Function::Ingest, "message failed"),
    (Function::Ingest, "batch failed"),
    (Function::Ingest, "startup failed"),
    (Function::Ingest, "panicked"),
    (Function::Migrate, "startup failed"),
    (Function::Migrate, "panicked"),
    (Function::Migrate, "the deployment failed"),
    (Function::Migrate, "the run failed"),
];

/// Number of lines in the table for people; more do not help them.
const SHOWN: usize = 100;

/// Arguments of `logs`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct LogsArguments {
    /// Show what failed: messages, batches, and starts of the functions
    #[arg(long, required = true)]
    pub failed: bool,
    /// How far to look back: a number of s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_time)]
    pub since: Duration,
}

/// What failed.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    stack: String,
    /// Number of lines for each cause, the most frequent first.
    causes: Vec<Cause>,
    /// The oldest first.
    lines: Vec<LogLine>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Cause {
    message: String,
    /// The reason of a message, or the error type of a batch.
    reason: Option<String>,
    field: Option<String>,
    lines: usize,
    /// Number of different messages.
    messages: usize,
}

/// Prints what failed.
pub(crate) async fn logs(
    stack: &Stack,
    arguments: LogsArguments,
    printer: Printer,
) -> Result<Outcome, Error> {
    let since = SystemTime::now().checked_sub(arguments.since).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut lines = Vec::new();
    for (function, message) in FAILURES {
        lines.extend(log_lines::read(stack, function, message, since).await?);
    }
    let report = Report::of(stack.name.clone(), lines);
    printer.print(&report)?;
    Ok(if report.lines.is_empty() { Outcome::Good } else { Outcome::Bad })
}

/// Parses a time such as `90s`, `30m`, `1h` or `2d`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let problem = || "write a number and s, m, h or d, such as 30m".to_owned();
    let unit = text.chars().next_back().ok_or_else(problem)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(problem()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| problem())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(problem)
}

impl Report {
    fn of(stack: String, mut lines: Vec<LogLine>) -> Self {
        lines.sort_by(|one, other| one.timestamp.cmp(&other.timestamp));
        let mut causes = BTreeMap::<_, (usize, BTreeSet<_>)>::new();
        for line in &lines {
            let reason = line.reason.clone().or_else(|| line.error_type.clone());
            let (number, ids) = causes.entry((line.message.clone(), reason, line.field.clone())).or_default();
            *number += 1;
            ids.extend(line.message_id.as_ref());
        }
        let mut causes: Vec<_> = causes
            .into_iter()
            .map(|((message, reason, field), (lines, ids))| Cause {
                message,
                reason,
                field,
                lines,
                messages: ids.len(),
            })
            .collect();
        causes.sort_by_key(|cause| std::cmp::Reverse(cause.lines));
        Self { stack, causes, lines }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lines.is_empty() {
            return write!(f, "Nothing failed in {} in this time; --since looks back further.", self.stack);
        }
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let causes = self.causes.iter().map(|cause| {
            let messages = if cause.messages == 0 { String::new() } else { cause.messages.to_string() };
            [
                cause.message.clone(),
                text(&cause.reason),
                text(&cause.field),
                cause.lines.to_string(),
                messages,
            ]
        });
        write!(f, "{}\n\n", table(["what", "reason", "field", "lines", "messages"], causes))?;
        let older = self.lines.len().saturating_sub(SHOWN);
        let lines = self.lines.iter().skip(older).map(|line| {
            [
                line.timestamp.clone(),
                line.message.clone(),
                text(&line.reason.clone().or_else(|| line.error_type.clone())),
                text(&line.message_id.clone().or_else(|| line.request_id.clone())),
                text(&line.error.clone().or_else(|| line.place.clone())),
            ]
        });
        write!(f, "{}", table(["time", "what", "reason", "message or request", "error"], lines))?;
        if older > 0 {
            write!(f, "\n\n{older} older lines are not shown: --json prints all of them.")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(timestamp: &str, id: &str) -> LogLine {
        LogLine {
            timestamp: timestamp.into(),
            message: "message failed".into(),
            message_id: Some(id.into()),
            reason: Some("MissingField".into()),
            field: Some("user_id".into()),
            error: Some("user_id is missing".into()),
            ..LogLine::default()
        }
    }

    #[test]
    fn times_have_a_unit() {
        let times =
            ["90s", "30m", "1h", "2d", "", "1", "h", "1w", "-1h", "1.5h", "é", "18446744073709551615d"]
                .map(|text| parse_time(text).ok().map(|time| time.as_secs()));

        assert_eq!(times[..4], [Some(90), Some(1800), Some(3600), Some(172_800)]);
        assert!(times[4..].iter().all(Option::is_none));
    }

    #[test]
    fn causes_count_lines_and_messages() {
        let batch = LogLine {
            timestamp: "1".into(),
            message: "batch failed".into(),
            error_type: Some("DatabaseDeadlock".into()),
            request_id: Some("request".into()),
            error: Some("deadlock\nof \u{1b}[2J two".into()),
            ..LogLine::default()
        };

        let report = Report::of("prod".into(), vec![failed("3", "m"), failed("2", "m"), batch]);

        assert_eq!(
            report.to_string(),
            "\
| what           | reason           | field   | lines | messages |
|----------------|------------------|---------|-------|----------|
| message failed | MissingField     | user_id | 2     | 1        |
| batch failed   | DatabaseDeadlock |         | 1     |          |

| time | what           | reason           | message or request | error                          |
|------|----------------|------------------|--------------------|--------------------------------|
| 1    | batch failed   | DatabaseDeadlock | request            | deadlock\\u000aof \\u001b[2J two |
| 2    | message failed | MissingField     | m                  | user_id is missing             |
| 3    | message failed | MissingField     | m                  | user_id is missing             |"
        );
    }

    #[test]
    fn only_the_newest_lines_are_shown() {
        let lines = (0..150).map(|number| failed(&format!("{number:03}"), "m")).collect();

        let shown = Report::of("prod".into(), lines).to_string();

        assert!(!shown.contains("| 049"));
        assert!(shown.contains("| 050"));
        assert!(shown.ends_with("50 older lines are not shown: --json prints all of them."));
    }
}
