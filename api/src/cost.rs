//! What an environment costs on Modal, as far as the metadata tell.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::page::within;

/// Query of `GET …/cost`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EstimateCost {
    /// Number of past days, 1 to 90; default 30. The period starts with the creation of the environment at the
    /// earliest.
    #[param(minimum = 1, maximum = 90)]
    #[serde(default, deserialize_with = "days_of")]
    pub days: Option<u32>,
}

/// Reads a number of days, which has to be in its range.
fn days_of<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    within::<1, 90, D>(deserializer)
}

/// An estimate of what the environment cost in a period, or would have cost on Modal if it is local: containers' lives,
/// as they follow from the times of tasks and the
/// scheduler's interval, at Modal's list prices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Cost {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    /// Workers that run tasks, including their idle time.
    pub tasks: CostItem,
    /// The scheduler while tasks run.
    pub scheduler: CostItem,
    /// The cron that checks whether anything is due.
    pub gate: CostItem,
    /// US dollars in the period.
    pub total_usd: f64,
    /// US dollars in 30 days at the same rate.
    pub monthly_usd: f64,
    /// The assumptions of the estimate.
    pub assumptions: Vec<String>,
}

/// One kind of container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CostItem {
    /// Calls or tasks.
    pub calls: u64,
    /// Lifetime of containers in seconds.
    pub container_seconds: f64,
    pub usd: f64,
}
