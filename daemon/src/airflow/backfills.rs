//! Backfills: read from the metadata, changed by the scheduler.

use airflow_serverless_api::{
    backfill::{
        Backfill, BackfillAction, BackfillDetail, BackfillList, BackfillRun, BackfillState, CreateBackfill,
        DryRunBackfillList, ListBackfills,
    },
    page::limit,
};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlite_schema::row;

use super::Deployed;
use crate::error::{Error, Reason, Result, Subject};

const BACKFILL: &str = "SELECT id, dag_id, from_date, to_date, CAST(dag_run_conf AS TEXT) AS dag_run_conf, is_paused,
                               reprocess_behavior, max_active_runs, created_at, completed_at, updated_at
                        FROM backfill";

const RUNS: &str = "SELECT dates.logical_date, dates.partition_key, runs.run_id, runs.state, dates.exception_reason
                    FROM backfill_dag_run AS dates LEFT JOIN dag_run AS runs ON runs.id = dates.dag_run_id
                    WHERE dates.backfill_id = $1 ORDER BY dates.sort_ordinal";

row! {
    #[derive(Deserialize)]
    struct BackfillRow {
        id: i64,
        dag_id: String,
        from_date: DateTime<Utc>,
        to_date: DateTime<Utc>,
        dag_run_conf: Option<String>,
        is_paused: Option<bool>,
        reprocess_behavior: String,
        max_active_runs: i32,
        created_at: DateTime<Utc>,
        completed_at: Option<DateTime<Utc>>,
        updated_at: DateTime<Utc>,
    }
}

impl From<BackfillRow> for Backfill {
    fn from(row: BackfillRow) -> Self {
        let is_paused = row.is_paused.unwrap_or(false);
        // Airflow pauses a canceled backfill; ticks unpause those that complete otherwise.
        let state = match (row.completed_at, is_paused) {
            (None, false) => BackfillState::Running,
            (None, true) => BackfillState::Paused,
            (Some(_), false) => BackfillState::Completed,
            (Some(_), true) => BackfillState::Cancelled,
        };
        let conf = row.dag_run_conf.and_then(|text| serde_json::from_str(&text).ok()).filter(Value::is_object);
        Self {
            id: row.id,
            dag_id: row.dag_id,
            from_date: row.from_date,
            to_date: row.to_date,
            dag_run_conf: conf.unwrap_or_else(|| json!({})),
            state,
            is_paused,
            reprocess_behavior: row.reprocess_behavior,
            max_active_runs: row.max_active_runs,
            created_at: row.created_at,
            completed_at: row.completed_at,
            updated_at: row.updated_at,
        }
    }
}

row! {
    #[derive(Deserialize)]
    struct RunRow {
        logical_date: Option<DateTime<Utc>>,
        partition_key: Option<String>,
        run_id: Option<String>,
        state: Option<String>,
        exception_reason: Option<String>,
    }
}

impl From<RunRow> for BackfillRun {
    fn from(row: RunRow) -> Self {
        Self {
            logical_date: row.logical_date,
            partition_key: row.partition_key,
            dag_run_id: row.run_id,
            state: row.state,
            exception_reason: row.exception_reason,
        }
    }
}

/// The scheduler's reply to a command that changes a backfill.
#[derive(Deserialize)]
struct Changed {
    id: i64,
}

impl Deployed {
    /// Creates a backfill with its runs; returns it as the scheduler committed it.
    pub async fn create_backfill(&self, request: &CreateBackfill) -> Result<BackfillDetail> {
        let command = (Subject::Backfill, "create_backfill");
        let changed: Changed = self.command(command, json!(request)).await.map_err(about_its_dag)?;
        self.backfill(changed.id).await
    }

    /// Returns the runs that a backfill would have.
    pub async fn dry_run_backfill(&self, request: &CreateBackfill) -> Result<DryRunBackfillList> {
        self.command((Subject::Backfill, "dry_run_backfill"), json!(request)).await.map_err(about_its_dag)
    }

    /// Lists backfills, newest first.
    pub async fn list_backfills(&self, query: &ListBackfills) -> Result<BackfillList> {
        let metadata = self.metadata().await?;
        let filter = "($1 IS NULL OR dag_id = $1)";
        let sql = format!("{BACKFILL} WHERE {filter} ORDER BY id DESC LIMIT $2 OFFSET $3");
        let parameters = [json!(query.dag_id), json!(limit(query.limit)), json!(query.offset.unwrap_or(0))];
        let rows: Vec<BackfillRow> = metadata.query(&sql, &parameters).await?;
        let total_entries = metadata.count(&format!("backfill WHERE {filter}"), &parameters[..1]).await?;
        Ok(BackfillList { backfills: rows.into_iter().map(Backfill::from).collect(), total_entries })
    }

    /// Returns a backfill with its dates.
    pub async fn backfill(&self, id: i64) -> Result<BackfillDetail> {
        let missing = || Error::NotFound(Subject::Backfill, id.to_string(), self.name().clone());
        let metadata = self.metadata().await?;
        let id = [json!(id)];
        let found: Vec<BackfillRow> = metadata.query(&format!("{BACKFILL} WHERE id = $1"), &id).await?;
        let backfill = found.into_iter().next().map(Backfill::from).ok_or_else(missing)?;
        let runs: Vec<RunRow> = metadata.query(RUNS, &id).await?;
        Ok(BackfillDetail { backfill, dag_runs: runs.into_iter().map(BackfillRun::from).collect() })
    }

    /// Pauses, unpauses or cancels a backfill; returns it as the scheduler committed it.
    pub async fn change_backfill(&self, id: i64, action: BackfillAction) -> Result<BackfillDetail> {
        let kind = format!("{}_backfill", action.name());
        let arguments = json!({"backfill_id": id});
        let changed: Changed = self.command((Subject::Backfill, &kind), arguments).await?;
        self.backfill(changed.id).await
    }
}

/// Turns "not found" into an error about the DAG: a new backfill cannot be missing itself.
fn about_its_dag(error: Error) -> Error {
    match error {
        Error::Refused { reason: Reason::NotFound, message, .. } => {
            Error::Refused { subject: Subject::Dag, reason: Reason::NotFound, message }
        }
        error => error,
    }
}
