//! DAGs: listed with their files, deleted with them.

use std::collections::HashMap;

use airflow_serverless_api::{
    dag::{Dag, DagDeletion, DagFile, DagFileList, ImportError, UpdateDag},
    environment::EnvironmentName,
};
use chrono::{DateTime, Utc};
use modal_client::{Entry, EntryKind};
use serde::Deserialize;
use serde_json::json;
use sqlx::FromRow;

use super::{Airflow, DAGS, metadata::Metadata};
use crate::error::{Error, Result};

#[derive(FromRow, Deserialize)]
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

#[derive(FromRow, Deserialize)]
struct ImportErrorRow {
    filename: String,
    timestamp: Option<DateTime<Utc>>,
    stacktrace: String,
}

async fn dags(metadata: &Metadata) -> Result<Vec<Dag>> {
    const SQL: &str = "SELECT dag_id, relative_fileloc, is_paused, is_stale, has_import_errors, timetable_summary,
                              next_dagrun, last_parsed_time
                       FROM dag ORDER BY dag_id";
    Ok(metadata.query::<DagRow>(SQL, &[]).await?.into_iter().map(Dag::from).collect())
}

async fn import_errors(metadata: &Metadata) -> Result<Vec<ImportError>> {
    const SQL: &str = "SELECT filename, timestamp, stacktrace FROM import_error ORDER BY filename";
    let error = |row: ImportErrorRow| ImportError {
        filename: row.filename,
        timestamp: row.timestamp,
        stack_trace: row.stacktrace,
    };
    Ok(metadata.query(SQL, &[]).await?.into_iter().map(error).collect())
}

impl Airflow {
    /// The Python files of the DAG folder, each with what the scheduler found in it.
    pub async fn list_dag_files(&self, environment: &EnvironmentName) -> Result<DagFileList> {
        let volume = self.volume(environment).await?;
        let entries = volume.list(&format!("/{DAGS}"), true).await?;
        let (mut found, mut errors) = (HashMap::<String, Vec<Dag>>::new(), HashMap::new());
        if let Some(metadata) = self.metadata(environment).await? {
            for dag in dags(&metadata).await?.into_iter().filter(|dag| !dag.is_stale) {
                found.entry(dag.relative_fileloc.clone().unwrap_or_default()).or_default().push(dag);
            }
            for error in import_errors(&metadata).await? {
                errors.insert(error.filename.clone(), error);
            }
        }
        let mut files: Vec<DagFile> = entries.into_iter().filter_map(python_file).collect();
        for file in &mut files {
            file.dags = found.remove(&file.filename).unwrap_or_default();
            file.import_error = errors.remove(&file.filename);
        }
        files.sort_by(|a, b| a.filename.cmp(&b.filename));
        Ok(DagFileList { files })
    }

    /// Pauses or unpauses a DAG; gives it as the scheduler committed it.
    pub async fn update_dag(&self, environment: &EnvironmentName, dag_id: &str, update: UpdateDag) -> Result<Dag> {
        self.registry.deployed_environment(environment).await?;
        let kind = if update.is_paused { "pause" } else { "unpause" };
        self.command(environment, kind, json!({"dag_id": dag_id})).await?;
        let files = self.list_dag_files(environment).await?.files;
        let dag = files.into_iter().flat_map(|file| file.dags).find(|dag| dag.dag_id == dag_id);
        dag.ok_or_else(|| Error::DagNotFound(dag_id.to_owned(), environment.clone()))
    }

    /// Removes the file of a DAG from the Volume and returns once the scheduler has marked its DAGs inactive.
    pub async fn delete_dag(&self, environment: &EnvironmentName, dag_id: &str, force: bool) -> Result<DagDeletion> {
        let filename = self.file_of_dag(environment, dag_id).await?;
        let files = self.files.lock().await;
        let deactivated: Vec<String> = self
            .list_dag_files(environment)
            .await?
            .files
            .into_iter()
            .filter(|file| file.filename == filename)
            .flat_map(|file| file.dags)
            .map(|dag| dag.dag_id)
            .collect();
        let others: Vec<String> = deactivated.iter().filter(|other| *other != dag_id).cloned().collect();
        if !others.is_empty() && !force {
            return Err(Error::SharedFile { file: filename, others });
        }
        self.volume(environment).await?.remove(&format!("/{DAGS}/{filename}")).await?;
        drop(files);
        self.command(environment, "refresh", json!({})).await?;
        Ok(DagDeletion { dag_id: dag_id.to_owned(), filename, deactivated })
    }

    /// The file of an active DAG. One that is not known yet may have been uploaded a moment ago: the scheduler looks
    /// once more before the DAG counts as missing.
    async fn file_of_dag(&self, environment: &EnvironmentName, dag_id: &str) -> Result<String> {
        if let Some(file) = self.known_file(environment, dag_id).await? {
            return Ok(file);
        }
        self.command(environment, "refresh", json!({})).await?;
        let missing = || Error::DagNotFound(dag_id.to_owned(), environment.clone());
        self.known_file(environment, dag_id).await?.ok_or_else(missing)
    }

    async fn known_file(&self, environment: &EnvironmentName, dag_id: &str) -> Result<Option<String>> {
        let files = self.list_dag_files(environment).await?.files;
        let holds = |file: &DagFile| file.dags.iter().any(|dag| dag.dag_id == dag_id);
        Ok(files.into_iter().find(holds).map(|file| file.filename))
    }
}

fn python_file(entry: Entry) -> Option<DagFile> {
    let filename = entry.path.trim_start_matches('/').strip_prefix(DAGS)?.trim_start_matches('/').to_owned();
    (entry.kind == EntryKind::File && filename.ends_with(".py")).then(|| DagFile {
        filename,
        size: entry.size,
        modified_at: DateTime::from_timestamp(entry.modified as i64, 0),
        dags: Vec::new(),
        import_error: None,
    })
}
