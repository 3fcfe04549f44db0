//! What the containers of an environment print.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Query of `GET …/logs` and of its stream.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReadContainerLogs {
    /// Maximum number of past lines, 0 to 1000; default 100. Modal keeps them for some days.
    #[param(minimum = 0, maximum = 1000)]
    #[serde(default, deserialize_with = "tail_of")]
    pub tail: Option<u32>,
}

impl ReadContainerLogs {
    const DEFAULT: u32 = 100;
    pub const MOST: u32 = 1000;

    pub fn tail(&self) -> u32 {
        self.tail.unwrap_or(Self::DEFAULT)
    }
}

fn tail_of<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    crate::page::within::<0, { ReadContainerLogs::MOST }, D>(deserializer)
}

/// Response of `GET …/logs`, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ContainerLogs {
    pub lines: Vec<ContainerLine>,
}

/// A line that a container printed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ContainerLine {
    pub timestamp: DateTime<Utc>,
    pub source: LineSource,
    /// The Function that the container runs, such as `run_tick`; absent if it is no longer deployed.
    pub function: Option<String>,
    /// Modal's id, `ta-…`.
    pub container_id: String,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LineSource {
    Stdout,
    Stderr,
    /// Modal itself.
    System,
}
