//! DAG runs and their task instances.

use airflow_serverless_api::{
    event::EventKind,
    page::limit,
    run::{ClearDagRun, DagRun, DagRunDetail, DagRunList, ListDagRuns, TaskInstance, TriggerDagRun, UpdateDagRun},
    task::TaskInstanceList,
};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlite_schema::row;

use super::Deployed;
use crate::error::{Error, Result, Subject};

/// `conf` is cast because SQLite gives Airflow's JSON columns numeric affinity: a stored `16` would be read as a
/// number.
const RUN: &str = "SELECT dag_id, run_id, state, run_type, logical_date, queued_at, start_date, end_date,
                          CAST(conf AS TEXT) AS conf
                   FROM dag_run";

const TASKS: &str = "SELECT task_id, map_index, state, try_number, max_tries, operator, start_date, end_date, duration
                     FROM task_instance WHERE dag_id = $1 AND run_id = $2
                     ORDER BY start_date IS NULL, start_date, task_id, map_index";

row! {
    #[derive(Deserialize)]
    struct RunRow {
        dag_id: String,
        run_id: String,
        state: String,
        run_type: String,
        logical_date: Option<DateTime<Utc>>,
        queued_at: Option<DateTime<Utc>>,
        start_date: Option<DateTime<Utc>>,
        end_date: Option<DateTime<Utc>>,
        conf: Option<String>,
    }
}

impl From<RunRow> for DagRun {
    fn from(row: RunRow) -> Self {
        let duration = row.start_date.zip(row.end_date).map(|(start, end)| seconds(end - start));
        let conf = row.conf.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_else(|| json!({}));
        Self {
            dag_id: row.dag_id,
            dag_run_id: row.run_id,
            state: row.state,
            run_type: row.run_type,
            logical_date: row.logical_date,
            queued_at: row.queued_at,
            start_date: row.start_date,
            end_date: row.end_date,
            duration,
            conf,
        }
    }
}

fn seconds(duration: chrono::TimeDelta) -> f64 {
    duration.num_milliseconds() as f64 / 1000.0
}

/// The logs of a run are in a folder `run_id={run_id}` on the Volume; this is the limit for its name.
const LONGEST_RUN_ID: usize = 255 - "run_id=".len();

/// Checks a run id against Airflow's own rule and the limits of the log folder and the API path.
fn check_run_id(run_id: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.~:+-".contains(c);
    let fault = if run_id.is_empty() {
        "it is empty"
    } else if run_id.len() > LONGEST_RUN_ID {
        "it is longer than 248 characters"
    } else if !run_id.chars().all(allowed) {
        "only letters, digits and '_', '.', '~', ':', '+', '-' are allowed"
    } else if run_id == "." || run_id.contains("..") {
        "it reads as a path"
    } else {
        return Ok(());
    };
    Err(Error::InvalidRunId(run_id.to_owned(), fault))
}

/// The relevant part of a task's entry in the Dict.
#[derive(Deserialize)]
struct TaskEntry {
    status: String,
    try_number: i32,
    /// Seconds since the epoch.
    started_at: Option<f64>,
}

row! {
    #[derive(Deserialize)]
    struct TaskRow {
        task_id: String,
        map_index: i32,
        state: Option<String>,
        try_number: i32,
        max_tries: i32,
        operator: Option<String>,
        start_date: Option<DateTime<Utc>>,
        end_date: Option<DateTime<Utc>>,
        duration: Option<f64>,
    }
}

impl From<TaskRow> for TaskInstance {
    fn from(row: TaskRow) -> Self {
        Self {
            task_id: row.task_id,
            map_index: row.map_index,
            state: row.state,
            try_number: row.try_number,
            max_tries: row.max_tries,
            operator: row.operator,
            start_date: row.start_date,
            end_date: row.end_date,
            duration: row.duration,
        }
    }
}

impl Deployed {
    /// Triggers a run; returns it as the scheduler committed it.
    pub async fn trigger_dag_run(&self, dag_id: &str, request: TriggerDagRun) -> Result<DagRunDetail> {
        request.dag_run_id.as_deref().map_or(Ok(()), check_run_id)?;
        let arguments = json!({
            "dag_id": dag_id,
            "run_id": request.dag_run_id,
            "logical_date": request.logical_date,
            "conf": request.conf,
        });
        let result: Value = self.command((Subject::Dag, "trigger"), arguments).await?;
        let run_id = result.get("dag_run_id").and_then(Value::as_str).unwrap_or_default();
        let data = json!({"dag_id": dag_id, "dag_run_id": run_id});
        self.record(EventKind::DagRunTriggered, data).await;
        self.dag_run(dag_id, run_id).await
    }

    /// Lists runs, newest first.
    pub async fn list_dag_runs(&self, query: &ListDagRuns) -> Result<DagRunList> {
        let metadata = self.metadata().await?;
        let filter = "($1 IS NULL OR dag_id = $1) AND ($2 IS NULL OR state = $2)";
        let sql =
            format!("{RUN} WHERE {filter} ORDER BY coalesce(start_date, queued_at) DESC, id DESC LIMIT $3 OFFSET $4");
        let parameters =
            [json!(query.dag_id), json!(query.state), json!(limit(query.limit)), json!(query.offset.unwrap_or(0))];
        let rows: Vec<RunRow> = metadata.query(&sql, &parameters).await?;
        let total_entries = metadata.count(&format!("dag_run WHERE {filter}"), &parameters[..2]).await?;
        Ok(DagRunList { dag_runs: rows.into_iter().map(DagRun::from).collect(), total_entries })
    }

    /// Clears the tasks of a run, or the failed ones, so that they rerun; returns them as the scheduler left them.
    pub async fn clear_dag_run(&self, dag_id: &str, run_id: &str, request: ClearDagRun) -> Result<TaskInstanceList> {
        let arguments = json!({"dag_id": dag_id, "run_id": run_id, "only_failed": request.only_failed});
        self.change_tasks((Subject::Run, "clear_run"), (dag_id, run_id), arguments).await
    }

    /// Sets the state of a run and of its tasks accordingly; returns the run as the scheduler left it.
    pub async fn update_dag_run(&self, dag_id: &str, run_id: &str, update: UpdateDagRun) -> Result<DagRunDetail> {
        let arguments = json!({"dag_id": dag_id, "run_id": run_id, "state": update.state});
        let _: Value = self.command((Subject::Run, "mark_run"), arguments).await?;
        self.dag_run(dag_id, run_id).await
    }

    /// Returns one run with its task instances.
    pub async fn dag_run(&self, dag_id: &str, run_id: &str) -> Result<DagRunDetail> {
        let missing = || Error::RunNotFound(dag_id.to_owned(), run_id.to_owned());
        let metadata = self.metadata().await?;
        let parameters = [json!(dag_id), json!(run_id)];
        let runs: Vec<RunRow> =
            metadata.query(&format!("{RUN} WHERE dag_id = $1 AND run_id = $2"), &parameters).await?;
        let run = DagRun::from(runs.into_iter().next().ok_or_else(missing)?);
        let tasks: Vec<TaskRow> = metadata.query(TASKS, &parameters).await?;
        let mut task_instances: Vec<TaskInstance> = tasks.into_iter().map(TaskInstance::from).collect();
        self.mark_running(&run, &mut task_instances).await?;
        Ok(DagRunDetail { run, task_instances })
    }

    /// Marks tasks as running that have started according to the Dict. The metadata is updated only by the next tick,
    /// which may be a minute away.
    async fn mark_running(&self, run: &DagRun, tasks: &mut [TaskInstance]) -> Result<()> {
        let dict = self.dict().await?;
        for task in tasks.iter_mut().filter(|task| task.state.as_deref() == Some("queued")) {
            let mut key = format!("task:{}:{}:{}", run.dag_id, task.task_id, run.dag_run_id);
            if task.map_index >= 0 {
                key.push_str(&format!(":{}", task.map_index));
            }
            let entry = dict.get::<TaskEntry>(&key).await?;
            // A task that has already ended counts as running until a tick records the result.
            if let Some(entry) = entry.filter(|e| e.status != "QUEUED" && e.try_number == task.try_number) {
                task.state = Some("running".to_owned());
                task.start_date = entry.started_at.and_then(|at| DateTime::from_timestamp_millis((at * 1000.0) as i64));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_that_are_unsafe_as_paths_are_refused() {
        for good in ["manual__2026-01-31T00:00:00+00:00", "a.b", &"x".repeat(LONGEST_RUN_ID)] {
            assert!(check_run_id(good).is_ok(), "{good:?}");
        }
        for bad in ["", ".", "..", "a/b", "a..b", "a b", "ä", &"x".repeat(LONGEST_RUN_ID + 1)] {
            assert!(check_run_id(bad).is_err(), "{bad:?}");
        }
    }
}
