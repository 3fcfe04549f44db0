//! Airflow's own user interface, which runs for as long as somebody asks for it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::environment::EnvironmentName;

/// Data of the event `progress`: the current step of the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UiProgress {
    pub id: Uuid,
    pub message: String,
}

/// Data of the event `ready`: Airflow responds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UiReady {
    pub id: Uuid,
    /// URL with a one-time token. Treat it as a secret.
    pub url: String,
}

/// A UI that runs, starts or stops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ui {
    pub id: Uuid,
    pub environment: EnvironmentName,
    pub state: UiState,
    pub started_at: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UiState {
    Starting,
    Ready,
    /// Nobody asks for it any more, and it is being taken down.
    Ending,
}

/// Response of `GET /v1/uis`, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UiList {
    pub uis: Vec<Ui>,
    pub total_entries: u64,
}
