//! `login-etl vault agree`: compares the audit of the vault with what CloudTrail has about its keys.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::time::SystemTime;

use aws_sdk_cloudtrail::primitives::{DateTime, DateTimeFormat};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::aws::Aws;
use crate::cloudtrail::{self, Event};
use crate::error::{Error, Outcome};
use crate::output::{self, Printer};
use crate::stack::{Stack, StackOptions};
use crate::vault::{Vault, VaultOptions};

const DAY: i64 = 86_400;
/// The days that CloudTrail's event history has.
const MOST_DAYS: i64 = 90;
/// CloudTrail [delivers] an event after about 5 minutes, and does not guarantee it.
///
/// [delivers]: https://docs.aws.amazon.com/awscloudtrail/latest/userguide/get-and-view-cloudtrail-log-files.html
const DELIVERY: i64 = 15 * 60;
/// By how much the clocks of an entry and of its event may differ. What is this near to the beginning or to the end is
/// read, too, so that its counterpart is found.
const MARGIN: i64 = 5 * 60;
/// How long after its entry a request may reach KMS.
const LATEST: i64 = 60;

/// Arguments of `vault agree`.
#[derive(Debug, Args)]
pub(crate) struct AgreeArguments {
    /// First day to compare, in UTC, such as 2026-11-27
    #[arg(long, value_name = "DATE", value_parser = parse_date, conflicts_with = "days")]
    since: Option<i64>,
    /// Number of days to compare, back from now
    #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(i64).range(1..=3650))]
    days: i64,
    /// Log files of a trail, as JSON or .json.gz, instead of the event history of this account
    #[arg(long, value_name = "FILE", num_args = 1..)]
    cloudtrail: Vec<PathBuf>,
    #[command(flatten)]
    vault: VaultOptions,
}

#[derive(Serialize)]
struct Request {
    from: String,
    to: String,
    after: i64,
}

/// A page of the audit, as the vault answers it.
#[derive(Deserialize)]
struct Page {
    keys: Vec<String>,
    entries: Vec<Entry>,
    next: Option<i64>,
}

#[derive(Clone, Debug, Deserialize)]
struct Entry {
    id: i64,
    at: String,
    caller: String,
    verb: String,
    outcome: Option<String>,
    kms_request_id: Option<String>,
    taken: bool,
}

/// The result.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Report {
    from: String,
    to: String,
    agrees: bool,
    /// Number of entries for which KMS opened a value.
    entries: usize,
    /// Number of events with which KMS opened a stream.
    events: usize,
    /// Number of events with an error, which opened nothing.
    failed_events: usize,
    differences: Vec<Difference>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// KMS was used, and the audit does not have it.
    EventWithoutEntry,
    /// The audit has a request to KMS that CloudTrail does not have.
    EntryWithoutEvent,
    /// A value was handed out, and the audit does not have the outcome.
    EntryWithoutOutcome,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Difference {
    kind: Kind,
    at: String,
    caller: Option<String>,
    verb: Option<String>,
    audit_entry: Option<i64>,
    /// An entry without the id of its request, to which the event may belong.
    perhaps_entry: Option<i64>,
    kms_request_id: Option<String>,
}

/// Compares both.
pub(crate) async fn agree(
    options: &StackOptions,
    arguments: AgreeArguments,
    printer: Printer,
) -> Result<Outcome, Error> {
    let AgreeArguments { since, days, cloudtrail, vault } = arguments;
    let now = DateTime::from(SystemTime::now()).secs();
    let time = since.unwrap_or(now - days * DAY)..now - DELIVERY;
    if time.is_empty() {
        let text = "nothing to compare: CloudTrail has events up to 15 minutes after they occur";
        return Err(Error::Usage(text.to_owned()));
    }
    if cloudtrail.is_empty() && time.start < now - MOST_DAYS * DAY {
        let text =
            "CloudTrail's event history has 90 days: for older days, add --cloudtrail with files of a trail";
        return Err(Error::Usage(text.to_owned()));
    }
    let with_margin = time.start - MARGIN..time.end + MARGIN;
    // The audit comes from the database, whose owner could have removed a key. The stack's key is looked up in any case.
    let mut keys: BTreeSet<_> = match &vault.url {
        Some(_) => BTreeSet::new(),
        None => Stack::find(options)
            .await?
            .optional_output("VaultKeyArn")
            .map(ToOwned::to_owned)
            .into_iter()
            .collect(),
    };
    let vault = Vault::find(options, vault).await?;
    let (keys_of_audit, entries) = read_audit(&vault, &with_margin).await?;
    keys.extend(keys_of_audit);
    let keys: Vec<_> = keys.into_iter().collect();
    let mut events = if cloudtrail.is_empty() {
        look_up(options, &keys, &with_margin).await?
    } else {
        cloudtrail::read_files(&cloudtrail)?
    };
    events.retain(|event| event.is_of(&keys));
    let report = Report::of(&time, &entries, &events)?;
    printer.print(&report)?;
    Ok(if report.agrees { Outcome::Good } else { Outcome::Wrong })
}

async fn read_audit(vault: &Vault, time: &Range<i64>) -> Result<(Vec<String>, Vec<Entry>), Error> {
    let mut request = Request { from: text(time.start)?, to: text(time.end)?, after: 0 };
    let (mut keys, mut entries) = (Vec::new(), Vec::new());
    loop {
        let page: Page = vault.post("/audit", &request).await?;
        keys.extend(page.keys);
        entries.extend(page.entries);
        match page.next {
            Some(next) if next > request.after => request.after = next,
            _ => return Ok((keys, entries)),
        }
    }
}

/// Looks for events where the keys are.
async fn look_up(options: &StackOptions, keys: &[String], time: &Range<i64>) -> Result<Vec<Event>, Error> {
    let region =
        |key: &String| key.starts_with("arn:").then(|| key.split(':').nth(3).unwrap_or_default().to_owned());
    let regions: BTreeSet<_> =
        keys.iter().map(|key| region(key).or_else(|| options.region.clone())).collect();
    let mut events = Vec::new();
    for region in regions {
        let aws = Aws::connect(region).await?;
        let (from, to) = (DateTime::from_secs(time.start), DateTime::from_secs(time.end));
        events.extend(cloudtrail::look_up(&aws, from, to).await?);
    }
    Ok(events)
}

impl Report {
    fn of(time: &Range<i64>, entries: &[Entry], events: &[Event]) -> Result<Self, Error> {
        let timed_entries = timed(entries, |entry| &entry.at)?;
        let timed_events = timed(events, |event| &event.time)?;
        let known: HashSet<_> = entries.iter().filter_map(|entry| entry.kms_request_id.as_deref()).collect();
        let occurred: HashSet<_> = events.iter().filter_map(|event| event.request_id.as_deref()).collect();

        let mut report = Self {
            from: text(time.start)?,
            to: text(time.end)?,
            agrees: true,
            entries: 0,
            events: 0,
            failed_events: 0,
            differences: Vec::new(),
        };
        for (_, entry) in timed_entries.iter().filter(|(at, _)| time.contains(at)) {
            let opened = entry.kms_request_id.is_some() && entry.outcome.as_deref() != Some("kms-failed");
            report.entries += usize::from(opened);
            // Of requests that failed, CloudTrail has some only.
            if opened && entry.kms_request_id.as_deref().is_none_or(|id| !occurred.contains(id)) {
                report.differences.push(Difference::of_entry(Kind::EntryWithoutEvent, entry));
            } else if entry.taken && entry.outcome.is_none() {
                report.differences.push(Difference::of_entry(Kind::EntryWithoutOutcome, entry));
            }
        }
        for (at, event) in timed_events.iter().filter(|(at, _)| time.contains(at)) {
            if event.error_code.is_some() {
                report.failed_events += 1;
                continue;
            }
            report.events += 1;
            if event.request_id.as_deref().is_none_or(|id| !known.contains(id)) {
                let perhaps = timed_entries.iter().find(|(asked, entry)| entry.may_be_of(*asked, *at));
                report.differences.push(Difference {
                    kind: Kind::EventWithoutEntry,
                    at: event.time.clone(),
                    caller: event.caller().map(ToOwned::to_owned),
                    verb: None,
                    audit_entry: None,
                    perhaps_entry: perhaps.map(|(_, entry)| entry.id),
                    kms_request_id: event.request_id.clone(),
                });
            }
        }
        report.differences.sort_by(|one, other| (one.kind, &one.at).cmp(&(other.kind, &other.at)));
        report.agrees = report.differences.is_empty();
        Ok(report)
    }
}

impl Entry {
    /// Whether the entry was written just before an event and has no id of its request: KMS did not answer in time, or
    /// the program ended.
    fn may_be_of(&self, asked: i64, event: i64) -> bool {
        let is_open = self.taken && self.outcome.is_none() || self.outcome.as_deref() == Some("kms-failed");
        // The clocks may differ by some seconds.
        is_open && self.kms_request_id.is_none() && (asked - 5..asked + LATEST).contains(&event)
    }
}

impl Difference {
    fn of_entry(kind: Kind, entry: &Entry) -> Self {
        Self {
            kind,
            at: entry.at.clone(),
            caller: Some(entry.caller.clone()),
            verb: Some(entry.verb.clone()),
            audit_entry: Some(entry.id),
            perhaps_entry: None,
            kms_request_id: entry.kms_request_id.clone(),
        }
    }
}

/// Returns each with its time, in seconds since 1970.
fn timed<T>(all: &[T], time: impl Fn(&T) -> &String) -> Result<Vec<(i64, &T)>, Error> {
    let timed = all
        .iter()
        .map(|one| Some((DateTime::from_str(time(one), DateTimeFormat::DateTime).ok()?.secs(), one)));
    timed
        .collect::<Option<_>>()
        .ok_or_else(|| Error::Failed("a time of the audit or of CloudTrail cannot be read".to_owned()))
}

fn text(seconds: i64) -> Result<String, Error> {
    let text = DateTime::from_secs(seconds).fmt(DateTimeFormat::DateTime);
    text.map_err(|_| Error::Usage("the time is too far away".to_owned()))
}

/// Parses a date such as `2026-11-27`. Returns the beginning of its day in UTC, in seconds since 1970.
fn parse_date(text: &str) -> Result<i64, String> {
    let time = DateTime::from_str(&format!("{text}T00:00:00Z"), DateTimeFormat::DateTime);
    time.map(|time| time.secs()).map_err(|_| "write a date such as 2026-11-27".to_owned())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, entries, events, failed_events, .. } = self;
        if !self.agrees {
            let rows = self.differences.iter().map(|difference| {
                let entry = difference.audit_entry.map(|entry| entry.to_string());
                let perhaps = difference.perhaps_entry.map(|entry| format!("perhaps {entry}"));
                [
                    difference.at.clone(),
                    difference.kind.to_string(),
                    entry.or(perhaps).unwrap_or_default(),
                    difference.verb.clone().unwrap_or_default(),
                    difference.kms_request_id.clone().unwrap_or_default(),
                    difference.caller.clone().unwrap_or_default(),
                ]
            });
            let header = ["time", "difference", "audit entry", "verb", "request id of KMS", "caller"];
            write!(f, "{}\n\n", output::table(header, rows))?;
        }
        let verdict =
            if self.agrees { "The audit and CloudTrail agree" } else { "The audit and CloudTrail differ" };
        write!(
            f,
            "{verdict}, from {from} to {to}: {entries} entries with a value, {events} uses of the key, {failed_events} \
             refused uses."
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EventWithoutEntry => "the key was used without an entry",
            Self::EntryWithoutEvent => "CloudTrail does not have the request",
            Self::EntryWithoutOutcome => "a value was taken, and no outcome was told",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloudtrail::tests::{VAULT, event};

    type Found<'r> = (Kind, Option<i64>, Option<i64>, Option<&'r str>);

    const START: i64 = 1_795_737_600; // 2026-11-27T00:00:00Z

    fn entry(id: i64, time: &str, request_id: Option<&str>, outcome: Option<&str>) -> Entry {
        Entry {
            id,
            at: format!("2026-11-27T{time}.123456Z"),
            caller: "arn:aws:sts::111122223333:assumed-role/fraud/ann".into(),
            verb: "reveal".into(),
            outcome: outcome.map(Into::into),
            kms_request_id: request_id.map(Into::into),
            taken: true,
        }
    }

    fn at(time: &str, request_id: &str) -> Event {
        event(&format!("2026-11-27T{time}Z"), request_id)
    }

    fn compare(entries: &[Entry], events: &[Event]) -> Report {
        Report::of(&(START..START + DAY), entries, events).unwrap()
    }

    /// Returns kind, entry, perhaps the entry, and request id of each difference.
    fn found(report: &Report) -> Vec<Found<'_>> {
        let differences = report.differences.iter();
        differences
            .map(|one| (one.kind, one.audit_entry, one.perhaps_entry, one.kms_request_id.as_deref()))
            .collect()
    }

    #[test]
    fn request_id_joins_both() {
        let unknown = Entry { kms_request_id: None, ..entry(3, "01:00:02", None, Some("unknown")) };

        let report = compare(
            &[
                entry(1, "01:00:00", Some("a"), Some("done")),
                entry(2, "01:00:01", Some("b"), Some("unopenable")),
                unknown,
            ],
            &[at("01:00:00", "a"), at("01:00:02", "b")],
        );

        assert_eq!((report.agrees, report.entries, report.events, found(&report)), (true, 2, 2, vec![]));
        assert_eq!(
            report.to_string(),
            "The audit and CloudTrail agree, from 2026-11-27T00:00:00Z to 2026-11-28T00:00:00Z: 2 entries with a value, \
             2 uses of the key, 0 refused uses."
        );
    }

    #[test]
    fn each_difference_is_found() {
        let report = compare(
            &[
                entry(1, "01:00:00", Some("a"), Some("done")),
                entry(2, "02:00:00", None, None),
                entry(3, "03:00:00", None, Some("kms-failed")),
            ],
            &[at("01:30:00", "b"), at("02:00:01", "c"), at("03:00:03", "d")],
        );

        assert_eq!(
            found(&report),
            [
                (Kind::EventWithoutEntry, None, None, Some("b")),
                (Kind::EventWithoutEntry, None, Some(2), Some("c")),
                (Kind::EventWithoutEntry, None, Some(3), Some("d")),
                (Kind::EntryWithoutEvent, Some(1), None, Some("a")),
                (Kind::EntryWithoutOutcome, Some(2), None, None),
            ]
        );
        assert!(!report.agrees);
        let text = report.to_string();
        assert!(text.contains(VAULT) && text.contains("perhaps 3"), "{text}");
        assert!(text.ends_with("1 entries with a value, 3 uses of the key, 0 refused uses."), "{text}");
    }

    /// CloudTrail has some of the requests that failed, and they opened nothing.
    #[test]
    fn refused_requests_are_no_difference() {
        let mut refused = at("01:00:00", "c");
        refused.error_code = Some("AccessDenied".into());

        let report = compare(&[entry(1, "01:00:00", Some("a"), Some("kms-failed"))], &[refused]);

        assert_eq!((report.agrees, report.entries, report.events, report.failed_events), (true, 0, 0, 1));
    }

    #[test]
    fn counterparts_outside_the_time_are_found() {
        let before =
            Entry { at: "2026-11-26T23:59:59.9Z".into(), ..entry(1, "00:00:00", Some("a"), Some("done")) };
        let after = event("2026-11-28T00:00:00Z", "b");

        let report =
            compare(&[before, entry(2, "23:59:59", Some("b"), Some("done"))], &[at("00:00:00", "a"), after]);

        assert_eq!((report.agrees, report.entries, report.events), (true, 1, 1));
        let only_outside = compare(&[], &[event("2026-11-28T00:00:00Z", "b")]);
        assert!(only_outside.agrees);
    }

    #[test]
    fn unreadable_times_are_errors() {
        let entry = Entry { at: "192.0.2.1".into(), ..entry(1, "00:00:00", None, None) };

        let error = Report::of(&(START..START + DAY), &[entry], &[]).unwrap_err().to_string();

        assert_eq!(error, "a time of the audit or of CloudTrail cannot be read");
    }

    #[test]
    fn dates_are_days_of_utc() {
        assert_eq!(parse_date("2026-11-27"), Ok(START));
        for text in ["", "27.11.2026", "2026-11-27T00:00:00Z", "2026-13-01", "yesterday"] {
            assert!(parse_date(text).is_err(), "{text}");
        }
    }
}
