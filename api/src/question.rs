//! Questions: the requests of human-in-the-loop tasks for input.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::page::limit_of;

/// Query of `GET …/hitl-details`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuestions {
    /// Filter by DAG id.
    pub dag_id: Option<String>,
    /// Maximum number of entries, 1 to 1000; default 100.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(default, deserialize_with = "limit_of")]
    pub limit: Option<u32>,
    pub offset: Option<u32>,
}

/// An open question, with the field names of Airflow's `HITLDetail`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Question {
    pub dag_id: String,
    pub dag_run_id: String,
    pub task_id: String,
    /// -1 for a task that is not mapped.
    pub map_index: i32,
    pub subject: String,
    pub body: Option<String>,
    /// The options.
    pub options: Vec<String>,
    /// The options chosen without an answer in time; null if the task then fails.
    pub defaults: Option<Vec<String>>,
    /// Whether several options can be chosen.
    pub multiple: bool,
    /// The requested input: names, and Airflow's description of each.
    #[schema(value_type = Object)]
    pub params: serde_json::Value,
    pub created_at: DateTime<Utc>,
    /// Until when it can be answered; null without a limit.
    pub answer_by: Option<DateTime<Utc>>,
}

/// Response of `GET …/hitl-details`: open questions, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QuestionList {
    pub hitl_details: Vec<Question>,
    /// Total number, independent of the limit.
    pub total_entries: i64,
}

/// Body of `PATCH …/tasks/{task_id}/hitl-details`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerQuestion {
    /// One of the options, or several if the question takes them.
    pub chosen_options: Vec<String>,
    /// Values of the params.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub params_input: Option<serde_json::Map<String, serde_json::Value>>,
    /// Of a mapped task, the instance with the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_index: Option<i32>,
}

/// A recorded answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Response {
    pub dag_id: String,
    pub dag_run_id: String,
    pub task_id: String,
    pub map_index: i32,
    pub chosen_options: Vec<String>,
    #[schema(value_type = Object)]
    pub params_input: serde_json::Value,
    pub responded_at: DateTime<Utc>,
}
