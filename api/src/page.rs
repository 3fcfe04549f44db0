//! What lists and writes of variables, connections and pools have in common.

use serde::{Deserialize, Deserializer, Serialize, de::Error};
use utoipa::{IntoParams, ToSchema};

/// Query of lists.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Maximum number of entries, 1 to 1000; default 100.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(default, deserialize_with = "limit_of")]
    pub limit: Option<u32>,
    pub offset: Option<u32>,
    /// Include encrypted values. Only the scheduler can decrypt them.
    #[serde(default)]
    pub show_values: bool,
    /// With `show_values`, mask values that Airflow considers sensitive.
    #[serde(default)]
    pub hide_sensitive: bool,
}

impl Page {
    const DEFAULT_LIMIT: u32 = 100;
    pub const LARGEST_LIMIT: u32 = 1000;

    pub fn limit(&self) -> u32 {
        limit(self.limit)
    }

    pub fn offset(&self) -> u32 {
        self.offset.unwrap_or(0)
    }
}

/// Reads a limit, which has to be in its range.
pub(crate) fn limit_of<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    within::<1, { Page::LARGEST_LIMIT }, D>(deserializer)
}

/// Reads a number that may be absent, and has to be in a range if it is not.
pub(crate) fn within<'de, const LOW: u32, const HIGH: u32, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u32>, D::Error> {
    match Option::deserialize(deserializer)? {
        Some(number) if !(LOW..=HIGH).contains(&number) => {
            Err(D::Error::custom(format_args!("{number} is not from {LOW} to {HIGH}")))
        }
        number => Ok(number),
    }
}

/// The limit that a request means.
pub fn limit(asked: Option<u32>) -> u32 {
    asked.unwrap_or(Page::DEFAULT_LIMIT).clamp(1, Page::LARGEST_LIMIT)
}

/// Query of the answer with one variable or connection.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ShowOne {
    /// Return sensitive values in clear text instead of masked.
    #[serde(default)]
    pub show_values: bool,
}

/// The action on existing entries of the same name.
///
/// - `overwrite`: replace them.
/// - `fail`: write nothing if any exists.
/// - `skip`: keep them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActionOnExisting {
    #[default]
    Overwrite,
    Fail,
    Skip,
}

/// Response to a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Written {
    /// Names of entries that were created or overwritten.
    pub written: Vec<String>,
    /// Names of existing entries that were skipped.
    pub skipped: Vec<String>,
}
