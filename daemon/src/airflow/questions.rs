//! Questions of human-in-the-loop tasks: listed from the metadata, answered by the scheduler.

use airflow_serverless_api::{
    page::limit,
    question::{AnswerQuestion, ListQuestions, Question, QuestionList, Response},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sqlite_schema::row;

use super::{Deployed, tasks::arguments};
use crate::error::{Result, Subject};

const COLUMNS: &str = "SELECT ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.trigger_timeout, q.subject, q.body,
                              CAST(q.options AS TEXT) AS options, CAST(q.defaults AS TEXT) AS defaults, q.multiple,
                              CAST(q.params AS TEXT) AS params, q.created_at";
/// Open questions. `$1` is a DAG, or null for all.
const WAITING: &str = "hitl_detail AS q JOIN task_instance AS ti ON ti.id = q.ti_id
                       WHERE q.responded_at IS NULL AND ti.state IN ('awaiting_input', 'deferred')
                         AND (CAST($1 AS TEXT) IS NULL OR ti.dag_id = $1)";

row! {
    #[derive(Deserialize)]
    struct Row {
        dag_id: String,
        run_id: String,
        task_id: String,
        map_index: i32,
        trigger_timeout: Option<DateTime<Utc>>,
        subject: String,
        body: Option<String>,
        options: String,
        defaults: Option<String>,
        multiple: Option<bool>,
        params: Option<String>,
        created_at: DateTime<Utc>,
    }
}

impl From<Row> for Question {
    fn from(row: Row) -> Self {
        Self {
            dag_id: row.dag_id,
            dag_run_id: row.run_id,
            task_id: row.task_id,
            map_index: row.map_index,
            subject: row.subject,
            body: row.body,
            options: parsed(Some(&row.options)).unwrap_or_default(),
            defaults: parsed(row.defaults.as_deref()),
            multiple: row.multiple.unwrap_or(false),
            params: parsed::<Value>(row.params.as_deref()).filter(Value::is_object).unwrap_or_else(|| json!({})),
            created_at: row.created_at,
            answer_by: row.trigger_timeout,
        }
    }
}

/// Parses a JSON column; `null` counts as missing.
fn parsed<T: DeserializeOwned>(text: Option<&str>) -> Option<T> {
    serde_json::from_str(text?).ok().flatten()
}

impl Deployed {
    /// Lists the questions that wait for an answer, oldest first.
    pub async fn list_questions(&self, wanted: &ListQuestions) -> Result<QuestionList> {
        let metadata = self.metadata().await?;
        let dag_id = json!(wanted.dag_id);
        let sql = format!("{COLUMNS} FROM {WAITING} ORDER BY q.created_at, ti.id LIMIT $2 OFFSET $3");
        let page = [dag_id.clone(), json!(limit(wanted.limit)), json!(wanted.offset.unwrap_or(0))];
        let rows: Vec<Row> = metadata.query(&sql, &page).await?;
        let total_entries = metadata.count(WAITING, &[dag_id]).await?;
        Ok(QuestionList { hitl_details: rows.into_iter().map(Question::from).collect(), total_entries })
    }

    /// Answers the question of a task, which then continues.
    pub async fn answer_question(&self, task: (&str, &str, &str), answer: &AnswerQuestion) -> Result<Response> {
        self.command((Subject::Question, "answer_task"), arguments(task, answer)).await
    }
}
