//! Traces: the stages of a batch, sent to the X-Ray daemon that Lambda runs beside a function.
//!
//! The invocation itself is traced by Lambda, which also [links][links] it to the traces of those who sent
//! the messages; here is what only the function knows, in one datagram for a batch, and none where the
//! invocation is not sampled. Written here and not by a crate: X-Ray's own SDK has no Rust, and
//! OpenTelemetry's needs a collector beside the function, which takes longer to start than the function.
//!
//! A personal value cannot get in: names, times and counts are all that there is.
//!
//! [links]: https://docs.aws.amazon.com/xray/latest/devguide/xray-tracelinking.html

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::UdpSocket;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

/// What [every datagram][daemon] to the daemon begins with.
///
/// [daemon]: https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sendingdata.html#xray-api-daemon
const HEADER: &str = "{\"format\":\"json\",\"version\":1}\n";

/// Sends traces.
#[derive(Debug)]
pub struct Tracer {
    daemon: UdpSocket,
}

/// The invocation that a batch is traced in.
#[derive(Debug)]
pub struct Trace<'a> {
    tracer: &'a Tracer,
    root: &'a str,
    parent: &'a str,
    began: SystemTime,
}

/// A stage: its name, and when it began and ended after the batch began.
pub type Stage = (&'static str, Duration, Duration);

/// What a batch came to, to search traces by.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Annotations {
    /// How many messages there were, where they could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<usize>,
    /// How many rows the table has more, where the batch did not fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<u64>,
    /// How many messages failed.
    pub failed: u64,
    /// The `errorType`, where the batch failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<&'static str>,
}

impl Tracer {
    /// Prepares to send to the daemon at this address; `None` where it cannot be sent to, since a trace
    /// is no reason not to start.
    #[must_use]
    pub fn new(daemon: &str) -> Option<Self> {
        // Any port: nothing is received, and from nobody but the daemon.
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect(daemon).ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Self { daemon: socket })
    }

    /// Follows the invocation with this [tracing header][header], if it is sampled.
    ///
    /// [header]: https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
    #[must_use]
    pub fn follow<'a>(&'a self, header: &'a str) -> Option<Trace<'a>> {
        let part = |name: &str| header.split(';').find_map(|part| part.trim().strip_prefix(name));
        part("Sampled=1")?;
        let (root, parent) = (part("Root=")?, part("Parent=")?);
        Some(Trace { tracer: self, root, parent, began: SystemTime::now() })
    }
}

impl Trace<'_> {
    /// Sends the batch with its stages. What the daemon does not get is lost: no batch waits for it.
    pub fn end(&self, stages: &[Stage], elapsed: Duration, annotations: Annotations) {
        let segment = |name, from, to| Segment {
            id: Id::new(),
            name,
            start_time: Moment(self.began + from),
            end_time: Moment(self.began + to),
        };
        let batch = Batch {
            segment: segment("batch", Duration::ZERO, elapsed),
            kind: "subsegment",
            trace_id: self.root,
            parent_id: self.parent,
            fault: annotations.error_type.is_some(),
            annotations,
            subsegments: stages.iter().map(|&(name, from, to)| segment(name, from, to)).collect(),
        };
        if let Ok(document) = serde_json::to_string(&batch) {
            // Whether it arrives or not.
            let _ = self.tracer.daemon.send(format!("{HEADER}{document}").as_bytes());
        }
    }
}

/// A batch as a [subsegment][document] of the invocation.
///
/// [document]: https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html
#[derive(Serialize)]
struct Batch<'a> {
    #[serde(flatten)]
    segment: Segment,
    #[serde(rename = "type")]
    kind: &'static str,
    trace_id: &'a str,
    parent_id: &'a str,
    fault: bool,
    annotations: Annotations,
    subsegments: Vec<Segment>,
}

#[derive(Serialize)]
struct Segment {
    id: Id,
    name: &'static str,
    start_time: Moment,
    end_time: Moment,
}

/// 64 bits that are no other segment's.
struct Id(u64);

/// Written as seconds since 1970.
struct Moment(SystemTime);

impl Id {
    fn new() -> Self {
        // Keyed with random numbers, and with others each time.
        Self(RandomState::new().build_hasher().finish())
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let since_1970 = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        serializer.serialize_f64(since_1970.as_secs_f64())
    }
}
