//! What CloudTrail has about the keys of the vault: who let KMS open sealed values, and when.
//!
//! Of an event, only the fields of [`Event`] are read: names, ids and times. AWS [describes] these fields, and says
//! that CloudTrail has [all successful operations of KMS][kms] and some of those that failed. AWS shows no example of
//! `DeriveSharedSecret`; that of [`Decapsulate`] is an operation of the same kind.
//!
//! [describes]: https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
//! [kms]: https://docs.aws.amazon.com/kms/latest/developerguide/logging-using-cloudtrail.html
//! [`Decapsulate`]: https://docs.aws.amazon.com/kms/latest/developerguide/ct-decapsulate.html

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_sdk_cloudtrail::primitives::DateTime;
use aws_sdk_cloudtrail::types::{LookupAttribute, LookupAttributeKey};
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::sleep;

use crate::aws::{self, Aws};
use crate::error::Error;

const EVENT_SOURCE: &str = "kms.amazonaws.com";
/// The operation of KMS that opens a stream of sealed values.
const EVENT_NAME: &str = "DeriveSharedSecret";

/// How long to wait between two requests: AWS [allows] two a second.
///
/// [allows]: https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html
const PAUSE: Duration = Duration::from_millis(500);

/// The first bytes of a file that gzip compressed.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A request to KMS to open a stream.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    #[serde(rename = "eventTime")]
    pub time: String,
    #[serde(rename = "requestID")]
    pub request_id: Option<String>,
    /// The error of a request that opened nothing.
    pub error_code: Option<String>,
    user_identity: Option<UserIdentity>,
    resources: Option<Vec<Resource>>,
    request_parameters: Option<RequestParameters>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct UserIdentity {
    arn: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Resource {
    #[serde(rename = "ARN")]
    arn: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestParameters {
    key_id: Option<String>,
}

/// A file that a trail delivered.
#[derive(Deserialize)]
struct LogFile {
    #[serde(rename = "Records")]
    records: Vec<Value>,
}

impl Event {
    /// Who sent the request.
    pub(crate) fn caller(&self) -> Option<&str> {
        self.user_identity.as_ref()?.arn.as_deref()
    }

    /// Whether the request names one of these keys.
    pub(crate) fn is_of(&self, keys: &[String]) -> bool {
        let resources = self.resources.iter().flatten().filter_map(|resource| resource.arn.as_deref());
        let parameter = self.request_parameters.iter().filter_map(|parameters| parameters.key_id.as_deref());
        let mut named = resources.chain(parameter);
        named.any(|named| keys.iter().any(|key| is_same_key(named, key)))
    }

    /// Reads a record; `None` if it is another operation.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the fields have other types than AWS describes. To skip such an event would hide it.
    fn read(record: Value) -> Result<Option<Self>, Error> {
        if record["eventSource"] != EVENT_SOURCE || record["eventName"] != EVENT_NAME {
            return Ok(None);
        }
        // The parser's error is dropped: it quotes values.
        let event = serde_json::from_value(record);
        let unknown = || Error::Failed(format!("an event {EVENT_NAME} of CloudTrail cannot be read"));
        event.map(Some).map_err(|_| unknown())
    }
}

/// Returns the events of a time from the event history of a region, which has the last 90 days.
///
/// # Errors
///
/// As [`aws::failure`], and if an event cannot be read.
pub(crate) async fn look_up(aws: &Aws, from: DateTime, to: DateTime) -> Result<Vec<Event>, Error> {
    let name = LookupAttribute::builder()
        .attribute_key(LookupAttributeKey::EventName)
        .attribute_value(EVENT_NAME)
        .build()
        .unwrap_or_else(|_| unreachable!("the key and the value are set"));
    let request = aws.cloudtrail().lookup_events().lookup_attributes(name).start_time(from).end_time(to);
    let (mut events, mut next) = (Vec::new(), None);
    loop {
        let page = request.clone().set_next_token(next).send().await;
        let page = page.map_err(|error| aws::failure("LookupEvents", &error))?;
        for event in page.events() {
            let record = serde_json::from_str(event.cloud_trail_event().unwrap_or_default());
            let record =
                record.map_err(|_| Error::Failed("the answer of LookupEvents cannot be read".to_owned()))?;
            events.extend(Event::read(record)?);
        }
        next = page.next_token;
        if next.is_none() {
            return Ok(events);
        }
        sleep(PAUSE).await;
    }
}

/// Returns the events in files that a trail delivered: JSON, by choice compressed by gzip.
///
/// # Errors
///
/// [`Error::Usage`] if a file cannot be read, or is no such file.
pub(crate) fn read_files(files: &[PathBuf]) -> Result<Vec<Event>, Error> {
    let mut events = Vec::new();
    for file in files {
        for record in read_file(file)?.records {
            events.extend(Event::read(record)?);
        }
    }
    Ok(events)
}

fn read_file(file: &Path) -> Result<LogFile, Error> {
    let problem = |problem: &dyn std::fmt::Display| Error::Usage(format!("{}: {problem}", file.display()));
    let mut bytes = fs::read(file).map_err(|error| problem(&error))?;
    if bytes.starts_with(&GZIP) {
        let mut text = Vec::new();
        let read = GzDecoder::new(&*bytes).read_to_end(&mut text);
        read.map_err(|_| problem(&"gzip cannot decompress it"))?;
        bytes = text;
    }
    serde_json::from_slice(&bytes).map_err(|_| problem(&"it is no log file of CloudTrail"))
}

/// Whether both name the same key: two ARNs, or an ARN and the id at its end.
fn is_same_key(one: &str, other: &str) -> bool {
    let id = |key: &str| key.rsplit('/').next().unwrap_or_default().to_owned();
    if one.starts_with("arn:") && other.starts_with("arn:") { one == other } else { id(one) == id(other) }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) const KEY: &str =
        "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    pub(crate) const VAULT: &str = "arn:aws:sts::111122223333:assumed-role/vault/function";

    /// Returns a record as AWS shows that of `Decapsulate`.
    pub(crate) fn record(time: &str, request_id: &str) -> Value {
        json!({
            "eventVersion": "1.11",
            "userIdentity": { "type": "AssumedRole", "principalId": "EXAMPLE:function", "arn": VAULT },
            "eventTime": time,
            "eventSource": "kms.amazonaws.com",
            "eventName": "DeriveSharedSecret",
            "awsRegion": "eu-central-1",
            "sourceIPAddress": "192.0.2.0",
            "requestParameters": { "keyId": KEY, "keyAgreementAlgorithm": "ECDH" },
            "responseElements": null,
            "requestID": request_id,
            "eventID": "bcdef313-cb2b-478d-c5cb-a830e56bf632",
            "readOnly": true,
            "resources": [{ "accountId": "111122223333", "type": "AWS::KMS::Key", "ARN": KEY }],
            "eventType": "AwsApiCall",
            "managementEvent": true,
        })
    }

    pub(crate) fn event(time: &str, request_id: &str) -> Event {
        Event::read(record(time, request_id)).unwrap().unwrap()
    }

    #[test]
    fn names_and_ids_are_read() {
        let event = event("2026-11-27T00:00:00Z", "23456237-41e6-4c39-a9c0-a264eb660a74");

        assert_eq!(event.request_id.as_deref(), Some("23456237-41e6-4c39-a9c0-a264eb660a74"));
        assert_eq!((event.caller(), &*event.time), (Some(VAULT), "2026-11-27T00:00:00Z"));
        assert!(!format!("{event:?}").contains("192.0.2.0"));
    }

    #[test]
    fn other_keys_and_operations_are_left_out() {
        let id = "1234abcd-12ab-34cd-56ef-1234567890ab";
        let event = event("2026-11-27T00:00:00Z", "1");
        let mut by_parameter = event.clone();
        by_parameter.resources = None;

        for (key, expected) in
            [(KEY, true), (id, true), ("arn:aws:kms:eu-central-1:111122223333:key/other", false)]
        {
            assert_eq!(event.is_of(&[key.to_owned()]), expected, "{key}");
            assert_eq!(by_parameter.is_of(&[key.to_owned()]), expected, "{key}");
        }
        for (field, other) in [("eventName", "Decrypt"), ("eventSource", "s3.amazonaws.com")] {
            let mut record = record("2026-11-27T00:00:00Z", "1");
            record[field] = other.into();
            assert_eq!(Event::read(record).unwrap(), None);
        }
    }

    #[test]
    fn unreadable_event_is_an_error() {
        let mut record = record("2026-11-27T00:00:00Z", "1");
        record["eventTime"] = json!({ "leak": "192.0.2.1" });

        let error = Event::read(record).unwrap_err().to_string();

        assert_eq!(error, "an event DeriveSharedSecret of CloudTrail cannot be read");
    }
}
