//! Credentials for Modal's cloud: written, never read back.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::secret::Secret;

/// Modal's own server.
pub const MODAL_SERVER_URL: &str = "https://api.modal.com";

/// Body of `PUT /v1/credentials`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutCredentials {
    /// Begins with `ak-`.
    #[schema(min_length = 1, max_length = 200)]
    pub token_id: String,
    /// Begins with `as-`.
    pub token_secret: Secret,
    /// Server URL; default: Modal's cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_url: Option<String>,
}

/// Query of `PUT /v1/credentials`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StoreCredentials {
    /// Store them without checking them with the server.
    #[serde(default)]
    pub skip_check: bool,
}

/// The status of the daemon's credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CredentialsStatus {
    /// Whether there are credentials. Without them, environments run on Local Modal.
    pub configured: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_url: Option<String>,
    /// The workspace that the server returned when they were stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<DateTime<Utc>>,
}
