//! Airflow's variables.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Secret, page::ActionOnExisting};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Variable {
    pub key: String,
    /// In lists absent without `show_values`. Of a single variable always there, with what Airflow considers sensitive
    /// hidden without `show_values`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Secret>,
    pub description: Option<String>,
    pub is_encrypted: bool,
}

/// Response of `GET …/variables`, by key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VariableList {
    pub variables: Vec<Variable>,
    /// Total number, independent of the limit.
    pub total_entries: i64,
}

/// A variable to write. Without `Debug`, as its value may be a secret.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVariable {
    pub key: String,
    /// Text is stored as it is, anything else as JSON.
    pub value: serde_json::Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Body of `POST …/variables`: all of them are written, or none.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutVariables {
    pub variables: Vec<NewVariable>,
    #[serde(default)]
    pub action_on_existing_key: ActionOnExisting,
}
