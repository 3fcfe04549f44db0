//! Errors as RFC 9457 problem documents.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The media type of a [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A problem (RFC 9457) with the additional members `hint` and `errors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Stable identifier of the kind of problem, `urn:airflow-serverless:problem:<kind>`.
    #[serde(rename = "type")]
    #[schema(example = "urn:airflow-serverless:problem:environment-not-found")]
    pub kind: String,
    /// The kind of problem in a few words; the same for each problem of one type.
    pub title: String,
    /// HTTP status of the response.
    pub status: u16,
    /// What happened in this case.
    pub detail: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The individual faults.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
}

/// A fault of the input and its location.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// A key (`scheduler.interval_seconds`) or a file name.
    pub location: String,
    /// Line in the file, from 1, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    pub message: String,
}

impl Fault {
    pub fn new(location: impl Into<String>, message: impl Into<String>) -> Self {
        Self { location: location.into(), line: None, message: message.into() }
    }
}

impl Problem {
    /// Prefix of [`Problem::kind`].
    pub const NAMESPACE: &'static str = "urn:airflow-serverless:problem:";
}
