//! Airflow's connections.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Secret, page::ActionOnExisting};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Connection {
    pub connection_id: String,
    pub conn_type: String,
    pub description: Option<String>,
    pub host: Option<String>,
    pub login: Option<String>,
    pub schema: Option<String>,
    pub port: Option<i32>,
    /// Masked (`***`) or absent unless values were requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A JSON object as text; sensitive values are masked, or it is absent, unless values were requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Secret>,
    /// The whole connection as a URI; absent unless values were requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<Secret>,
}

/// Response of `GET …/connections`, by id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionList {
    pub connections: Vec<Connection>,
    /// Total number, independent of the limit.
    pub total_entries: i64,
}

/// A connection to write: a URI, or its fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewConnection {
    pub connection_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conn_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// A JSON object as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra: Option<Secret>,
}

/// Body of `POST …/connections`: all of them are written, or none.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutConnections {
    pub connections: Vec<NewConnection>,
    #[serde(default)]
    pub action_on_existing_key: ActionOnExisting,
}
