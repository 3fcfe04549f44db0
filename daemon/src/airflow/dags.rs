//! DAGs: listed with their files, deleted with them.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use airflow_serverless_api::{
    dag::{
        Dag, DagDeletion, DagDetail, DagFile, DagFileList, ImportError, ImportErrorList, ListDagFiles,
        ListImportErrors, ShadowedDag, Task, UpdateDag,
    },
    environment::EnvironmentName,
    page::limit,
};
use chrono::{DateTime, Utc};
use modal_client::{Entry, EntryKind};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlite_schema::row;

use super::{
    Airflow, DAGS,
    files::{PLUGINS, check_path},
    metadata::Metadata,
};
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

row! {
    #[derive(Deserialize)]
    struct ImportErrorRow {
        filename: String,
        timestamp: Option<DateTime<Utc>>,
        stacktrace: String,
    }
}

/// How long a DAG is waited for that was just uploaded: an upload makes the scheduler look at once.
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

/// The newest version of the DAG as Airflow serialises it.
const SERIALIZED: &str = "SELECT CAST(data AS TEXT) AS data FROM serialized_dag WHERE dag_id = $1
                          ORDER BY created_at DESC LIMIT 1";

row! {
    #[derive(Deserialize)]
    struct SerializedRow {
        data: Option<String>,
    }
}

/// The tasks of a serialized DAG. Each is an object with `__var`, which has what the task sets of its own.
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

async fn dags(metadata: &Metadata) -> Result<Vec<Dag>> {
    const SQL: &str = "SELECT dag_id, relative_fileloc, is_paused, is_stale, has_import_errors, timetable_summary,
                              next_dagrun, last_parsed_time
                       FROM dag ORDER BY dag_id";
    Ok(metadata.query::<DagRow>(SQL, &[]).await?.into_iter().map(Dag::from).collect())
}

async fn import_errors(metadata: &Metadata) -> Result<Vec<ImportError>> {
    const SQL: &str = "SELECT filename, timestamp, stacktrace FROM import_error ORDER BY filename";
    let error = |row: ImportErrorRow| ImportError {
        line: line_of(&row.filename, &row.stacktrace),
        filename: row.filename,
        timestamp: row.timestamp,
        stack_trace: row.stacktrace,
    };
    Ok(metadata.query(SQL, &[]).await?.into_iter().map(error).collect())
}

row! {
    /// A DAG that the scheduler has found in a file, and the file whose DAG of this id counts.
    #[derive(Deserialize)]
    pub(super) struct Definition {
        pub path: String,
        pub dag_id: String,
        pub defined_in: String,
    }
}

/// Nothing before the first tick of a version that has this table.
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

/// The files at which scheduler tick done. None before the first tick of a version that has this table.
async fn known_files(metadata: &Metadata) -> HashSet<String> {
    let found = metadata.query::<FileRow>("SELECT path FROM airflow_serverless_file", &[]).await;
    let rows = found.unwrap_or_else(|error| {
        tracing::warn!(error = chain(&error), "cannot read which files the scheduler has parsed");
        Vec::new()
    });
    rows.into_iter().map(|row| row.path).collect()
}

impl Airflow {
    /// A page of the Python files of the DAG folder, without plugins, each with what the scheduler found in it.
    pub async fn list_dag_files(&self, environment: &EnvironmentName, wanted: &ListDagFiles) -> Result<DagFileList> {
        let mut files = self.dag_files(environment).await?;
        files.retain_mut(|file| is_wanted(file, wanted));
        let total_entries = files.len() as i64;
        let (offset, limit) = (wanted.offset.unwrap_or(0) as usize, limit(wanted.limit) as usize);
        Ok(DagFileList { files: files.into_iter().skip(offset).take(limit).collect(), total_entries })
    }

    async fn dag_files(&self, environment: &EnvironmentName) -> Result<Vec<DagFile>> {
        let volume = self.volume(environment).await?;
        let entries = volume.list(&format!("/{DAGS}"), true).await?;
        let (mut found, mut errors) = (HashMap::<String, Vec<Dag>>::new(), HashMap::new());
        let mut shadowed = HashMap::<String, Vec<ShadowedDag>>::new();
        let metadata = self.metadata(environment).await?;
        for dag in dags(&metadata).await?.into_iter().filter(|dag| !dag.is_stale) {
            found.entry(dag.relative_fileloc.clone().unwrap_or_default()).or_default().push(dag);
        }
        for error in import_errors(&metadata).await? {
            errors.insert(error.filename.clone(), error);
        }
        let known = known_files(&metadata).await;
        for Definition { path, dag_id, defined_in } in definitions(&metadata).await {
            if path != defined_in {
                shadowed.entry(path).or_default().push(ShadowedDag { dag_id, defined_in });
            }
        }
        let mut files: Vec<DagFile> = entries.into_iter().filter_map(python_file).collect();
        for file in &mut files {
            file.dags = found.remove(&file.filename).unwrap_or_default();
            file.is_known = known.contains(&file.filename);
            file.import_error = errors.remove(&file.filename);
            file.shadowed_dags = shadowed.remove(&file.filename).unwrap_or_default();
        }
        files.sort_by(|a, b| a.filename.cmp(&b.filename));
        Ok(files)
    }

    /// The content of a file of the DAG folder.
    pub async fn dag_file(&self, environment: &EnvironmentName, filename: &str) -> Result<Vec<u8>> {
        check_path(filename)?;
        let content = self.volume(environment).await?.read(&format!("/{DAGS}/{filename}")).await?;
        content.ok_or_else(|| Error::FileNotFound(filename.to_owned(), environment.clone()))
    }

    /// A page of what does not import, by file.
    pub async fn list_import_errors(
        &self,
        environment: &EnvironmentName,
        wanted: &ListImportErrors,
    ) -> Result<ImportErrorList> {
        let all = import_errors(&self.metadata(environment).await?).await?;
        let total_entries = all.len() as i64;
        let (offset, limit) = (wanted.offset.unwrap_or(0) as usize, limit(wanted.limit) as usize);
        Ok(ImportErrorList { import_errors: all.into_iter().skip(offset).take(limit).collect(), total_entries })
    }

    /// A DAG that is in a file, with its tasks. One that was just uploaded is waited for until it is parsed.
    pub async fn dag(&self, environment: &EnvironmentName, dag_id: &str) -> Result<DagDetail> {
        let missing = || Error::DagNotFound(dag_id.to_owned(), environment.clone());
        let began = Instant::now();
        let (metadata, dag) = loop {
            let metadata = self.metadata(environment).await?;
            let dag = dags(&metadata).await?.into_iter().find(|dag| dag.dag_id == dag_id && !dag.is_stale);
            if let Some(dag) = dag {
                break (metadata, dag);
            }
            if began.elapsed() > LONGEST_PARSE || !self.is_expected(environment, dag_id).await? {
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

    /// Pauses or unpauses a DAG; gives it as the scheduler committed it.
    pub async fn update_dag(&self, environment: &EnvironmentName, dag_id: &str, update: UpdateDag) -> Result<Dag> {
        let kind = if update.is_paused { "pause" } else { "unpause" };
        let _: Value = self.command(environment, (Subject::Dag, kind), json!({"dag_id": dag_id})).await?;
        let files = self.dag_files(environment).await?;
        let dag = files.into_iter().flat_map(|file| file.dags).find(|dag| dag.dag_id == dag_id);
        dag.ok_or_else(|| Error::DagNotFound(dag_id.to_owned(), environment.clone()))
    }

    /// Removes the file of a DAG from the Volume and returns once the scheduler has marked its DAGs inactive.
    pub async fn delete_dag(&self, environment: &EnvironmentName, dag_id: &str, force: bool) -> Result<DagDeletion> {
        let filename = self.file_of_dag(environment, dag_id).await?;
        let files = self.files.lock(environment).await;
        let deactivated = self.dags_of_file(environment, &filename).await?;
        let others: Vec<String> = deactivated.iter().filter(|other| *other != dag_id).cloned().collect();
        if !others.is_empty() && !force {
            return Err(Error::SharedFile { file: filename, others });
        }
        self.remove_dag_file(environment, &filename).await?;
        drop(files);
        self.refresh(environment).await?;
        Ok(DagDeletion { dag_id: dag_id.to_owned(), filename, deactivated })
    }

    /// The active DAGs of a file.
    pub(super) async fn dags_of_file(&self, environment: &EnvironmentName, filename: &str) -> Result<Vec<String>> {
        let files = self.dag_files(environment).await?;
        let file = files.into_iter().find(|file| file.filename == filename);
        Ok(file.into_iter().flat_map(|file| file.dags).map(|dag| dag.dag_id).collect())
    }

    /// The file of an active DAG. One that is not known yet may have been uploaded a moment ago: the scheduler looks
    /// once more before the DAG counts as missing.
    async fn file_of_dag(&self, environment: &EnvironmentName, dag_id: &str) -> Result<String> {
        if let Some(file) = self.known_file(environment, dag_id).await? {
            return Ok(file);
        }
        self.refresh(environment).await?;
        let missing = || Error::DagNotFound(dag_id.to_owned(), environment.clone());
        self.known_file(environment, dag_id).await?.ok_or_else(missing)
    }

    /// Has the scheduler look at the DAG folder.
    pub(super) async fn refresh(&self, environment: &EnvironmentName) -> Result<()> {
        let _: Value = self.command(environment, (Subject::Dag, "refresh"), json!({})).await?;
        Ok(())
    }

    async fn known_file(&self, environment: &EnvironmentName, dag_id: &str) -> Result<Option<String>> {
        let files = self.dag_files(environment).await?;
        let holds = |file: &DagFile| file.dags.iter().any(|dag| dag.dag_id == dag_id);
        Ok(files.into_iter().find(holds).map(|file| file.filename))
    }
}

/// Whether the file is of the kind that is asked for; of its DAGs only those are left that are.
fn is_wanted(file: &mut DagFile, wanted: &ListDagFiles) -> bool {
    let ListDagFiles { dag_id_pattern, paused, has_import_errors, .. } = wanted;
    let pattern = dag_id_pattern.as_ref().map(|pattern| pattern.to_lowercase());
    let matches = |dag: &Dag| {
        pattern.as_ref().is_none_or(|pattern| dag.dag_id.to_lowercase().contains(pattern))
            && paused.is_none_or(|paused| dag.is_paused == paused)
    };
    file.dags.retain(matches);
    let asks_for_dags = pattern.is_some() || paused.is_some();
    has_import_errors.is_none_or(|wanted| file.import_error.is_some() == wanted)
        && !(asks_for_dags && file.dags.is_empty())
}

/// The last line of the file that a stack trace names.
fn line_of(filename: &str, stacktrace: &str) -> Option<u32> {
    let start = format!("{filename}\", line ");
    let (_, rest) = stacktrace.rsplit_once(&start)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn python_file(entry: Entry) -> Option<DagFile> {
    let filename = entry.path.trim_start_matches('/').strip_prefix(DAGS)?.trim_start_matches('/').to_owned();
    let is_dag_file = filename.ends_with(".py") && !filename.starts_with(PLUGINS);
    (entry.kind == EntryKind::File && is_dag_file).then(|| DagFile {
        filename,
        size: entry.size,
        modified_at: DateTime::from_timestamp(entry.modified as i64, 0),
        dags: Vec::new(),
        import_error: None,
        shadowed_dags: Vec::new(),
        is_known: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_chosen_by_their_dags_and_errors() {
        let dag = |dag_id: &str, is_paused| Dag {
            dag_id: dag_id.to_owned(),
            relative_fileloc: None,
            is_paused,
            is_stale: false,
            has_import_errors: false,
            timetable_summary: None,
            next_dagrun_logical_date: None,
            last_parsed_time: None,
        };
        let error =
            ImportError { filename: "b.py".to_owned(), line: None, timestamp: None, stack_trace: String::new() };
        let file = |name: &str, dags, import_error| DagFile {
            filename: name.to_owned(),
            size: 1,
            modified_at: None,
            dags,
            import_error,
            shadowed_dags: Vec::new(),
            is_known: false,
        };
        let chosen = |wanted: ListDagFiles| {
            let mut files = vec![
                file("a.py", vec![dag("Sales", false), dag("stock", true)], None),
                file("b.py", Vec::new(), Some(error.clone())),
                file("c.py", vec![dag("other", true)], None),
            ];
            files.retain_mut(|file| is_wanted(file, &wanted));
            let named = |file: &DagFile| {
                let dags: Vec<&str> = file.dags.iter().map(|dag| dag.dag_id.as_str()).collect();
                format!("{}: {}", file.filename, dags.join(" "))
            };
            files.iter().map(named).collect::<Vec<_>>()
        };
        assert_eq!(chosen(ListDagFiles::default()), ["a.py: Sales stock", "b.py: ", "c.py: other"]);
        let pattern = ListDagFiles { dag_id_pattern: Some("sAL".to_owned()), ..Default::default() };
        assert_eq!(chosen(pattern), ["a.py: Sales"]);
        let paused = ListDagFiles { paused: Some(true), ..Default::default() };
        assert_eq!(chosen(paused), ["a.py: stock", "c.py: other"]);
        let broken = ListDagFiles { has_import_errors: Some(true), ..Default::default() };
        assert_eq!(chosen(broken), ["b.py: "]);
    }

    #[test]
    fn the_last_line_of_the_file_is_found() {
        let trace =
            "  File \"/vol/dags/a.py\", line 3, in <module>\n  File \"/vol/dags/b.py\", line 7, in f\nKeyError: 1";
        assert_eq!((line_of("a.py", trace), line_of("b.py", trace), line_of("c.py", trace)), (Some(3), Some(7), None));
    }
}
