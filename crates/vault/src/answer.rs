//! Answers, in the form that an HTTP API and a Function URL expect.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use crate::problem::{MEDIA_TYPE, Problem};

/// How long a client should wait before it tries again, in seconds.
const RETRY_AFTER: &str = "5";

/// An answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The HTTP status.
    pub status_code: u16,
    /// The headers. Nothing on the way may keep the answer.
    pub headers: BTreeMap<&'static str, &'static str>,
    /// The body.
    #[serde(serialize_with = "as_text")]
    pub body: Zeroizing<String>,
    is_base64_encoded: bool,
}

impl Answer {
    /// Makes the answer of a request that succeeded.
    #[must_use]
    pub fn ok(body: &impl Serialize) -> Self {
        Self::new(200, "application/json", body)
    }

    fn new(status_code: u16, content_type: &'static str, body: &impl Serialize) -> Self {
        let body = serde_json::to_string(body).unwrap_or_else(|_| unreachable!("the keys are texts"));
        let headers = BTreeMap::from([("cache-control", "no-store"), ("content-type", content_type)]);
        Self { status_code, headers, body: Zeroizing::new(body), is_base64_encoded: false }
    }
}

impl From<&Problem> for Answer {
    fn from(problem: &Problem) -> Self {
        let mut answer = Self::new(problem.status, MEDIA_TYPE, problem);
        if problem.status == 405 {
            answer.headers.insert("allow", "POST");
        }
        if problem.is_temporary {
            answer.headers.insert("retry-after", RETRY_AFTER);
        }
        answer
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status_code", &self.status_code).finish_non_exhaustive()
    }
}

fn as_text<S: Serializer>(body: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(body)
}
