//! `login-etl redrive`: the function reads the dead-letter queue until no more of its messages succeed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::concurrency;
use crate::confirmation;
use crate::error::{Error, Outcome};
use crate::log_lines::{self, Function, LogLine};
use crate::mapping::RedriveMapping;
use crate::output::{self, Printer, table};
use crate::queue::{self, Counts};
use crate::signals::Signals;
use crate::stack::Stack;

/// How long the log may take to show what the function has just logged.
const LOG_DELAY: Duration = Duration::from_secs(20);
/// The counts of SQS are approximate, so an empty queue is looked at again.
const LOOKS_AT_EMPTY_QUEUE: u32 = 3;

/// Arguments of `redrive`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct RedriveArguments {
    /// Stop after this time without progress
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub patience: u64,
}

/// What became of the dead letters.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    stack: String,
    /// In the queue before the redrive.
    before: u64,
    /// In the queue after it.
    left: u64,
    /// Of those left: the function tried them, and they failed. `null` if the log could not be read.
    failed_again: Option<u64>,
    /// Of those left: nothing in the log says that the function tried them.
    not_tried: Option<u64>,
    /// Why letters failed again: number of letters for each reason.
    reasons: Vec<FailedLetters>,
    /// Batches that failed as a whole.
    failed_batches: Vec<FailedBatches>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct FailedLetters {
    reason: String,
    field: Option<String>,
    letters: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct FailedBatches {
    error_type: String,
    batches: u64,
    /// Letters in these batches. A letter that was delivered twice counts twice.
    letters: u64,
}

/// Decides when a redrive ends: after a time in which no letter left the queue and no letter was tried.
#[derive(Debug)]
struct Patience {
    time: Duration,
    give_up_at: Instant,
    /// The smallest numbers so far. Letters that fail come back after their visibility timeout, so larger numbers are
    /// no progress.
    fewest: Counts,
    fewest_total: u64,
    looks_at_empty_queue: u32,
}

impl Patience {
    /// Letters that were in flight `before` come back within `visibility_timeout`, and are waited for.
    fn start(time: Duration, before: Counts, visibility_timeout: Duration, now: Instant) -> Self {
        let come_back = if before.in_flight > 0 { visibility_timeout } else { Duration::ZERO };
        Self {
            time,
            give_up_at: now + time + come_back,
            fewest: before,
            fewest_total: before.total(),
            looks_at_empty_queue: 0,
        }
    }

    /// Looks at the numbers. Returns whether to go on.
    fn goes_on(&mut self, counts: Counts, now: Instant) -> bool {
        if counts.total() < self.fewest_total || counts.waiting < self.fewest.waiting {
            self.fewest_total = self.fewest_total.min(counts.total());
            self.fewest.waiting = self.fewest.waiting.min(counts.waiting);
            self.give_up_at = self.give_up_at.max(now + self.time);
        }
        self.looks_at_empty_queue = if counts.total() == 0 { self.looks_at_empty_queue + 1 } else { 0 };
        self.looks_at_empty_queue < LOOKS_AT_EMPTY_QUEUE && now < self.give_up_at
    }
}

/// Writes the dead letters of a stack: turns the mapping of their queue on, and off again.
///
/// The mapping is off when this returns, also after an error or a signal, or the error says that it may be on.
pub(crate) async fn redrive(
    stack: &Stack,
    arguments: RedriveArguments,
    printer: Printer,
    signals: &mut Signals,
    yes: bool,
) -> Result<Outcome, Error> {
    let mapping = RedriveMapping::of(stack)?;
    let was_off = signals.interrupt(mapping.is_off()).await?;
    if !was_off {
        output::progress(
            "the mapping is on: an earlier redrive was killed, or another redrive runs; this redrive turns it off at \
             its end",
        );
    }
    let redriven = redrive_letters(stack, &mapping, arguments, signals, yes).await;
    if !was_off || mapping.was_turned_on() {
        mapping.turn_off(signals).await?;
    }
    let (total, since) = redriven?;
    let report = signals.interrupt(report(stack, total, since, arguments)).await?;
    printer.print(&report)?;
    Ok(if report.left == 0 { Outcome::Good } else { Outcome::Bad })
}

/// Returns the number of dead letters before the redrive, and when it started; `None` if there was no letter.
async fn redrive_letters(
    stack: &Stack,
    mapping: &RedriveMapping<'_>,
    arguments: RedriveArguments,
    signals: &mut Signals,
    yes: bool,
) -> Result<(u64, Option<SystemTime>), Error> {
    let queue_url = stack.output("DeadLetterQueueUrl")?;
    let before = signals.interrupt(queue::describe(&stack.aws, queue_url)).await?;
    let total = before.counts.total();
    output::progress(format_args!("{total} dead letter(s) in the queue"));
    if total == 0 {
        return Ok((0, None));
    }
    signals.interrupt(concurrency::check(stack)).await?;
    let change = format!("The function tries to write {total} dead letter(s) of {}.", stack.name);
    signals.interrupt(confirmation::confirm(&change, yes)).await?;
    let since = follow_redrive(stack, mapping, &before, arguments, signals).await?;
    Ok((total, Some(since)))
}

/// Turns the mapping on and follows the redrive to its end. Returns when it started.
async fn follow_redrive(
    stack: &Stack,
    mapping: &RedriveMapping<'_>,
    before: &queue::Described,
    arguments: RedriveArguments,
    signals: &mut Signals,
) -> Result<SystemTime, Error> {
    output::progress("turning the mapping of the dead-letter queue on");
    let since = SystemTime::now();
    mapping.turn_on(signals).await?;
    let time = Duration::from_secs(arguments.patience);
    let interval = (time / 15).clamp(Duration::from_millis(200), Duration::from_secs(2));
    let mut patience = Patience::start(time, before.counts, before.visibility_timeout, Instant::now());
    let queue_url = stack.output("DeadLetterQueueUrl")?;
    let follow = async {
        let mut shown = before.counts;
        loop {
            sleep(interval).await;
            let counts = queue::describe(&stack.aws, queue_url).await?.counts;
            if counts != shown {
                output::progress(format_args!(
                    "{} left, {} of them in flight",
                    counts.total(),
                    counts.in_flight
                ));
                shown = counts;
            }
            if !patience.goes_on(counts, Instant::now()) {
                return Ok(since);
            }
            if mapping.is_off().await? {
                return Err(Error::Failed("somebody else turned the mapping off".to_owned()));
            }
        }
    };
    signals.interrupt(follow).await
}

/// Reports what is left, and why. `since` is `None` if there was no dead letter.
async fn report(
    stack: &Stack,
    before: u64,
    since: Option<SystemTime>,
    arguments: RedriveArguments,
) -> Result<Report, Error> {
    let mut report = Report {
        stack: stack.name.clone(),
        before,
        left: 0,
        failed_again: Some(0),
        not_tried: Some(0),
        reasons: Vec::new(),
        failed_batches: Vec::new(),
    };
    let Some(since) = since else { return Ok(report) };
    let queue_url = stack.output("DeadLetterQueueUrl")?;
    report.left = queue::describe(&stack.aws, queue_url).await?.counts.total();
    if report.left == 0 {
        return Ok(report);
    }
    let queue = queue_url.rsplit('/').next().unwrap_or_default();
    let give_up_at = Instant::now() + LOG_DELAY.min(Duration::from_secs(arguments.patience));
    loop {
        match failures(stack, queue, since).await {
            Ok((messages, batches)) => report.explain(&messages, &batches),
            Err(error) => {
                output::progress(format_args!("the log does not say which letters failed again: {error}"));
                (report.failed_again, report.not_tried) = (None, None);
                return Ok(report);
            }
        }
        if report.not_tried == Some(0) || Instant::now() > give_up_at {
            return Ok(report);
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Reads which messages of the queue failed, and which of its batches failed as a whole.
async fn failures(
    stack: &Stack,
    queue: &str,
    since: SystemTime,
) -> Result<(Vec<LogLine>, Vec<LogLine>), Error> {
    let mut messages = log_lines::read(stack, Function::Ingest, "message failed", since).await?;
    let mut batches = log_lines::read(stack, Function::Ingest, "batch failed", since).await?;
    messages.retain(|line| line.queue.as_deref() == Some(queue));
    batches.retain(|line| line.queue.as_deref() == Some(queue));
    Ok((messages, batches))
}

impl Report {
    /// Tells letters that failed again from those that were not tried.
    fn explain(&mut self, messages: &[LogLine], batches: &[LogLine]) {
        // A letter that was tried twice counts once, with its last reason.
        let by_id: BTreeMap<_, _> = messages
            .iter()
            .map(|line| (&line.message_id, (line.reason.clone(), line.field.clone())))
            .collect();
        let mut reasons = BTreeMap::<_, u64>::new();
        for reason in by_id.values() {
            *reasons.entry(reason.clone()).or_default() += 1;
        }
        self.reasons = reasons
            .into_iter()
            .map(|((reason, field), letters)| FailedLetters {
                reason: reason.unwrap_or_default(),
                field,
                letters,
            })
            .collect();
        let mut error_types = BTreeMap::<_, (u64, u64)>::new();
        for batch in batches {
            let (number, letters) =
                error_types.entry(batch.error_type.clone().unwrap_or_default()).or_default();
            *number += 1;
            *letters += batch.messages.unwrap_or_default();
        }
        self.failed_batches = error_types
            .into_iter()
            .map(|(error_type, (batches, letters))| FailedBatches { error_type, batches, letters })
            .collect();
        let in_batches: u64 = self.failed_batches.iter().map(|failed| failed.letters).sum();
        let failed = self.left.min(by_id.len() as u64 + in_batches);
        self.failed_again = Some(failed);
        self.not_tried = Some(self.left - failed);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.before == 0 {
            return write!(f, "{} has no dead letters.", self.stack);
        }
        if self.left == 0 {
            return write!(f, "All {} dead letter(s) of {} are written.", self.before, self.stack);
        }
        let number = |number: Option<u64>| number.map_or("unknown".to_owned(), |number| number.to_string());
        let rows = [
            ("before".to_owned(), self.before.to_string()),
            ("left".to_owned(), self.left.to_string()),
            ("of them failed again".to_owned(), number(self.failed_again)),
            ("of them not tried".to_owned(), number(self.not_tried)),
        ];
        write!(f, "{}", table(["dead letters", "number"], rows.map(|(what, number)| [what, number])))?;
        let reasons = self.reasons.iter().map(|reason| {
            let field = reason.field.clone().unwrap_or_default();
            [reason.reason.clone(), field, reason.letters.to_string(), String::new()]
        });
        let batches = self.failed_batches.iter().map(|failed| {
            [failed.error_type.clone(), String::new(), failed.letters.to_string(), failed.batches.to_string()]
        });
        let why: Vec<_> = reasons.chain(batches).collect();
        if !why.is_empty() {
            write!(f, "\n\n{}", table(["why they failed", "field", "letters", "failed batches"], why))?;
        }
        if self.not_tried.is_some_and(|letters| letters > 0) {
            f.write_str("\n\nRun redrive again for those that were not tried, with a larger --patience if they are many.")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(30);
    const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(190);

    fn counts(waiting: u64, in_flight: u64) -> Counts {
        Counts { waiting, in_flight }
    }

    fn failed_message(id: &str, reason: &str) -> LogLine {
        LogLine { message_id: Some(id.into()), reason: Some(reason.into()), ..LogLine::default() }
    }

    fn report_of(before: u64, left: u64) -> Report {
        Report {
            stack: "login-etl-prod".into(),
            before,
            left,
            failed_again: Some(0),
            not_tried: Some(0),
            reasons: Vec::new(),
            failed_batches: Vec::new(),
        }
    }

    #[test]
    fn only_fewer_letters_are_progress() {
        let start = Instant::now();
        let mut patience = Patience::start(TIME, counts(4, 0), VISIBILITY_TIMEOUT, start);
        let mut goes_on = |counts, seconds| patience.goes_on(counts, start + Duration::from_secs(seconds));

        // One letter is written, then three fail one after the other, and come back.
        let went_on = [
            goes_on(counts(2, 1), 29),
            goes_on(counts(0, 3), 58),
            goes_on(counts(3, 0), 60),
            goes_on(counts(0, 3), 87),
            goes_on(counts(0, 3), 88),
        ];

        assert_eq!(went_on, [true, true, true, true, false]);
    }

    #[test]
    fn letters_in_flight_are_waited_for() {
        let start = Instant::now();
        let mut patience = Patience::start(TIME, counts(0, 2), VISIBILITY_TIMEOUT, start);
        let mut goes_on = |counts, seconds| patience.goes_on(counts, start + Duration::from_secs(seconds));

        let went_on = [goes_on(counts(0, 2), 219), goes_on(counts(0, 1), 219), goes_on(counts(0, 1), 249)];

        assert_eq!(went_on, [true, true, false]);
    }

    #[test]
    fn empty_queue_is_looked_at_again() {
        let start = Instant::now();
        let mut patience = Patience::start(TIME, counts(1, 0), VISIBILITY_TIMEOUT, start);

        let went_on = [0, 0, 1, 0, 0, 0]
            .map(|waiting| patience.goes_on(counts(waiting, 0), start + Duration::from_secs(1)));

        assert_eq!(went_on, [true, true, true, true, true, false]);
    }

    #[test]
    fn failed_letters_are_told_from_untried() {
        let mut report = report_of(9, 7);
        let messages = [
            failed_message("a", "NotJson"),
            failed_message("b", "RowRefused"),
            failed_message("a", "NotJson"),
        ];
        let batch =
            LogLine { error_type: Some("DatabaseTimedOut".into()), messages: Some(3), ..LogLine::default() };

        report.explain(&messages, &[batch]);

        assert_eq!((report.failed_again, report.not_tried), (Some(5), Some(2)));
        assert_eq!(
            report.to_string(),
            "\
| dead letters         | number |
|----------------------|--------|
| before               | 9      |
| left                 | 7      |
| of them failed again | 5      |
| of them not tried    | 2      |

| why they failed  | field | letters | failed batches |
|------------------|-------|---------|----------------|
| NotJson          |       | 1       |                |
| RowRefused       |       | 1       |                |
| DatabaseTimedOut |       | 3       | 1              |

Run redrive again for those that were not tried, with a larger --patience if they are many."
        );
    }

    #[test]
    fn letters_tried_twice_are_not_counted_twice() {
        let mut report = report_of(2, 2);
        let batch = LogLine { messages: Some(2), ..LogLine::default() };

        report.explain(&[failed_message("a", "NotJson")], &[batch.clone(), batch]);

        assert_eq!((report.failed_again, report.not_tried), (Some(2), Some(0)));
    }
}
