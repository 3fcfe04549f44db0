//! DAGs: details, pausing, and deletion together with the file.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use airflow_serverless_api::dag::{Dag, DagDeletion, DagDetail, DagFile, Task, UpdateDag};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlite_schema::row;

use super::{Deployed, metadata::Metadata};
use crate::{
    error::{Error, Result, Subject},
    report::chain,
};

row! {
    #[derive(Deserialize)]
    struct DagRow {
        dag_id: String,
        relative_fileloc: Option<String>,
        is_paused: bool,
        is_stale: bool,
        has_import_errors: bool,
        timetable_summary: Option<String>,
        next_dagrun: Option<DateTime<Utc>>,
        last_parsed_time: Option<DateTime<Utc>>,
    }
}

impl From<DagRow> for Dag {
    fn from(row: DagRow) -> Self {
        Self {
            dag_id: row.dag_id,
            relative_fileloc: row.relative_fileloc,
            is_paused: row.is_paused,
            is_stale: row.is_stale,
            has_import_errors: row.has_import_errors,
            timetable_summary: row.timetable_summary,
            next_dagrun_logical_date: row.next_dagrun,
            last_parsed_time: row.last_parsed_time,
        }
    }
}

/// Longest wait for a DAG that was just uploaded. Each upload triggers a tick.
const LONGEST_PARSE: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

const DETAIL: &str = "SELECT description, coalesce(owners, '') AS owners, next_dagrun_create_after, max_active_runs,
                             max_active_tasks
                      FROM dag WHERE dag_id = $1";

row! {
    #[derive(Deserialize)]
    struct DetailRow {
        description: Option<String>,
        owners: String,
        next_dagrun_create_after: Option<DateTime<Utc>>,
        max_active_runs: Option<i32>,
        max_active_tasks: i32,
    }
}

row! {
    #[derive(Deserialize)]
    struct TagRow {
        name: String,
    }
}

/// The newest version of the DAG as Airflow serializes it.
const SERIALIZED: &str = "SELECT CAST(data AS TEXT) AS data FROM serialized_dag WHERE dag_id = $1
                          ORDER BY created_at DESC LIMIT 1";

row! {
    #[derive(Deserialize)]
    struct SerializedRow {
        data: Option<String>,
    }
}

/// Returns the tasks of a serialized DAG. Each entry is an object whose `__var` has the task's own settings.
fn tasks(data: &Value) -> Vec<Task> {
    let text = |task: &Value, key: &str| task.get(key).and_then(Value::as_str).map(str::to_owned);
    let entries = data.pointer("/dag/tasks").and_then(Value::as_array).into_iter().flatten();
    let task = |entry: &Value| {
        let task = entry.get("__var").unwrap_or(entry);
        let downstream = task.get("downstream_task_ids").and_then(Value::as_array).into_iter().flatten();
        Some(Task {
            task_id: text(task, "task_id")?,
            operator_name: text(task, "_operator_name").or_else(|| text(task, "task_type")).unwrap_or_default(),
            is_mapped: task.get("_is_mapped").and_then(Value::as_bool).unwrap_or(false),
            downstream_task_ids: downstream.filter_map(|id| id.as_str().map(str::to_owned)).collect(),
        })
    };
    entries.filter_map(task).collect()
}

const ACTIVE: &str = "SELECT dag_id, relative_fileloc, is_paused, is_stale, has_import_errors, timetable_summary,
                             next_dagrun, last_parsed_time
                      FROM dag WHERE NOT is_stale";

/// Returns the DAGs that are in files, by id.
pub(super) async fn active(metadata: &Metadata) -> Result<Vec<Dag>> {
    query(metadata, format!("{ACTIVE} ORDER BY dag_id"), &[]).await
}

/// Returns the DAGs in this file, by id.
pub(super) async fn active_in(metadata: &Metadata, filename: &str) -> Result<Vec<Dag>> {
    query(metadata, format!("{ACTIVE} AND relative_fileloc = $1 ORDER BY dag_id"), &[json!(filename)]).await
}

async fn active_dag(metadata: &Metadata, dag_id: &str) -> Result<Option<Dag>> {
    Ok(query(metadata, format!("{ACTIVE} AND dag_id = $1"), &[json!(dag_id)]).await?.into_iter().next())
}

async fn query(metadata: &Metadata, sql: String, parameters: &[Value]) -> Result<Vec<Dag>> {
    Ok(metadata.query::<DagRow>(&sql, parameters).await?.into_iter().map(Dag::from).collect())
}

row! {
    /// A DAG that the scheduler has found in a file, and the file whose definition of it is used.
    #[derive(Deserialize)]
    pub(super) struct Definition {
        pub path: String,
        pub dag_id: String,
        pub defined_in: String,
    }
}

/// Returns all definitions; empty before the first tick of a version that has this table.
pub(super) async fn definitions(metadata: &Metadata) -> Vec<Definition> {
    let sql = "SELECT found.path, found.dag_id, dag.relative_fileloc AS defined_in
               FROM airflow_serverless_definition AS found JOIN dag ON dag.dag_id = found.dag_id
               WHERE dag.relative_fileloc IS NOT NULL AND NOT dag.is_stale ORDER BY found.path, found.dag_id";
    metadata.query(sql, &[]).await.unwrap_or_else(|error| {
        tracing::warn!(error = chain(&error), "what files define is not known");
        Vec::new()
    })
}

row! {
    #[derive(Deserialize)]
    struct FileRow {
        path: String,
    }
}

/// Returns the files that the scheduler has parsed; empty before the first tick of a version that has this table.
pub(super) async fn known_files(metadata: &Metadata) -> HashSet<String> {
    let found = metadata.query::<FileRow>("SELECT path FROM airflow_serverless_file", &[]).await;
    let rows = found.unwrap_or_else(|error| {
        tracing::warn!(error = chain(&error), "cannot read which files the scheduler has parsed");
        Vec::new()
    });
    rows.into_iter().map(|row| row.path).collect()
}

impl Deployed {
    /// Returns a DAG with its tasks. Waits until a DAG that was just uploaded is parsed.
    pub async fn dag(&self, dag_id: &str) -> Result<DagDetail> {
        let missing = || Error::DagNotFound(dag_id.to_owned(), self.name().clone());
        let began = Instant::now();
        let (metadata, dag) = loop {
            let metadata = self.metadata().await?;
            if let Some(dag) = active_dag(&metadata, dag_id).await? {
                break (metadata, dag);
            }
            if began.elapsed() > LONGEST_PARSE || !self.is_expected(dag_id) {
                return Err(missing());
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        };
        let id = [json!(dag_id)];
        let rows: Vec<DetailRow> = metadata.query(DETAIL, &id).await?;
        let row = rows.into_iter().next().ok_or_else(missing)?;
        let tags: Vec<TagRow> = metadata.query("SELECT name FROM dag_tag WHERE dag_id = $1 ORDER BY name", &id).await?;
        let serialized: Vec<SerializedRow> = metadata.query(SERIALIZED, &id).await?;
        let data = serialized.into_iter().next().and_then(|row| serde_json::from_str(&row.data?).ok());
        Ok(DagDetail {
            dag,
            description: row.description,
            owners: row.owners.split(',').map(|owner| owner.trim().to_owned()).filter(|o| !o.is_empty()).collect(),
            tags: tags.into_iter().map(|tag| tag.name).collect(),
            next_dagrun_run_after: row.next_dagrun_create_after,
            max_active_runs: row.max_active_runs,
            max_active_tasks: row.max_active_tasks,
            tasks: data.as_ref().map(tasks).unwrap_or_default(),
        })
    }

    /// Pauses or unpauses a DAG; returns it as the scheduler committed it.
    pub async fn update_dag(&self, dag_id: &str, update: UpdateDag) -> Result<Dag> {
        let kind = if update.is_paused { "pause" } else { "unpause" };
        let _: Value = self.command((Subject::Dag, kind), json!({"dag_id": dag_id})).await?;
        let dag = active_dag(&self.metadata().await?, dag_id).await?;
        dag.ok_or_else(|| Error::DagNotFound(dag_id.to_owned(), self.name().clone()))
    }

    /// Removes the file of a DAG from the Volume and returns once the scheduler has marked its DAGs inactive.
    pub async fn delete_dag(&self, dag_id: &str, force: bool) -> Result<DagDeletion> {
        let missing = || Error::DagNotFound(dag_id.to_owned(), self.name().clone());
        let mut files = self.airflow.files.lock(self.name()).await;
        let mut found = self.file_of_dag(dag_id).await?;
        if found.is_none() {
            // It may have just been uploaded: refresh once before reporting it as missing.
            drop(files);
            self.refresh().await?;
            files = self.airflow.files.lock(self.name()).await;
            found = self.file_of_dag(dag_id).await?;
        }
        let DagFile { filename, dags, .. } = found.ok_or_else(missing)?;
        let deactivated: Vec<String> = dags.into_iter().map(|dag| dag.dag_id).collect();
        let others: Vec<String> = deactivated.iter().filter(|other| *other != dag_id).cloned().collect();
        if !others.is_empty() && !force {
            return Err(Error::SharedFile { file: filename, others });
        }
        // Refresh even if another client has removed the file in the meantime.
        self.remove_dag_file(&filename).await?;
        drop(files);
        self.refresh().await?;
        Ok(DagDeletion { dag_id: dag_id.to_owned(), filename, deactivated })
    }

    /// Returns the file of an active DAG, with all DAGs in it.
    async fn file_of_dag(&self, dag_id: &str) -> Result<Option<DagFile>> {
        let holds = |file: &DagFile| file.dags.iter().any(|dag| dag.dag_id == dag_id);
        Ok(self.dag_files().await?.into_iter().find(holds))
    }
}
