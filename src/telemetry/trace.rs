//! Traces: the stages of a batch, sent to the X-Ray daemon that Lambda runs beside a function.
//!
//! Lambda traces the invocation itself, and [links][links] it to the traces of the messages' senders. The
//! function adds its stages: one datagram for a batch, and none if the invocation is not sampled. No crate
//! does this: X-Ray has no SDK for Rust, and OpenTelemetry needs a collector beside the function, which
//! takes longer to start than the function.
//!
//! No trace holds a personal value: it holds only names, times and counts.
//!
//! [links]: https://docs.aws.amazon.com/xray/latest/devguide/xray-tracelinking.html

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::UdpSocket;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

/// The first line of [every datagram][daemon] to the daemon.
///
/// [daemon]: https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sendingdata.html#xray-api-daemon
const HEADER: &str = "{\"format\":\"json\",\"version\":1}\n";

/// Sends traces to the daemon.
#[derive(Debug)]
pub struct Tracer {
    daemon: UdpSocket,
}

/// A sampled invocation.
#[derive(Debug)]
pub struct Trace<'a> {
    tracer: &'a Tracer,
    root: &'a str,
    parent: &'a str,
    started: SystemTime,
}

/// A stage: its name, its start and its end, both counted from the start of the batch. X-Ray rejects a whole
/// batch whose name or a stage's name has a character other than those in [its list][document].
///
/// [document]: https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html
pub type Stage = (&'static str, Duration, Duration);

/// The results of a batch, to search traces by.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Annotations {
    /// Number of messages, where the event could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<usize>,
    /// Number of rows inserted, where the batch did not fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<u64>,
    /// Number of failed messages.
    pub failed: u64,
    /// The `errorType`, where the batch failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<&'static str>,
}

impl Tracer {
    /// Opens a socket to the daemon at this address; `None` on failure: the function then starts without
    /// traces.
    #[must_use]
    pub fn new(daemon: &str) -> Option<Self> {
        // Any port: the socket receives nothing, and is connected to the daemon only.
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect(daemon).ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Self { daemon: socket })
    }

    /// Starts to trace the invocation with this [tracing header][header]; `None` if it is not sampled.
    ///
    /// [header]: https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
    #[must_use]
    pub fn start_trace<'a>(&'a self, header: &'a str) -> Option<Trace<'a>> {
        let part = |name: &str| header.split(';').find_map(|part| part.trim().strip_prefix(name));
        part("Sampled=1")?;
        let (root, parent) = (part("Root=")?, part("Parent=")?);
        Some(Trace { tracer: self, root, parent, started: SystemTime::now() })
    }
}

impl Trace<'_> {
    /// Sends the batch with its stages. A lost datagram is not sent again: no batch waits for its trace.
    pub fn end(&self, stages: &[Stage], elapsed: Duration, annotations: Annotations) {
        let segment = |name, from, to| Segment {
            id: Id::new(),
            name,
            start_time: Moment(self.started + from),
            end_time: Moment(self.started + to),
        };
        let batch = BatchSegment {
            segment: segment("batch", Duration::ZERO, elapsed),
            kind: "subsegment",
            trace_id: self.root,
            parent_id: self.parent,
            fault: annotations.error_type.is_some(),
            annotations,
            subsegments: stages.iter().map(|&(name, from, to)| segment(name, from, to)).collect(),
        };
        if let Ok(document) = serde_json::to_string(&batch) {
            let _ = self.tracer.daemon.send(format!("{HEADER}{document}").as_bytes());
        }
    }
}

/// A batch as a [subsegment][document] of the invocation.
///
/// [document]: https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html
#[derive(Serialize)]
struct BatchSegment<'a> {
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

/// A segment's id: 64 random bits.
struct Id(u64);

/// Written as seconds since 1970.
struct Moment(SystemTime);

impl Id {
    fn new() -> Self {
        // Each `RandomState` has new random keys.
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
