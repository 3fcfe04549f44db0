//! Airflow's pools.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::page::ActionOnExisting;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    pub name: String,
    /// Number of slots; -1 means unlimited.
    #[schema(minimum = -1)]
    pub slots: i32,
    #[serde(default)]
    pub description: Option<String>,
    /// Whether deferred tasks use slots.
    #[serde(default)]
    pub include_deferred: bool,
}

/// Response of `GET …/pools`, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolList {
    pub pools: Vec<Pool>,
    /// Total number, independent of the limit.
    pub total_entries: i64,
}

/// Body of `POST …/pools`: all of them are written, or none.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutPools {
    pub pools: Vec<Pool>,
    #[serde(default)]
    pub action_on_existing_key: ActionOnExisting,
}
