//! DAG files and plugins on the Volume.

use std::collections::HashMap;

use airflow_serverless_api::{
    dag::{
        Dag, DagFile, DagFileChange, DagFileDeletion, DagFileList, ImportError, ListDagFiles, PutMode, PutOutcome,
        ShadowedDag,
    },
    event::EventKind,
    page::limit,
    watch::FileWarning,
};
use chrono::{DateTime, Utc};
use modal_client::{Entry, EntryKind, File};
use serde_json::json;

use super::{
    Deployed, dags, definitions,
    file_names::{DagFilePath, check_size},
    import_errors::import_errors,
};
use crate::{
    error::{Error, Result},
    report::chain,
};

/// Folder of the DAG files on the Volume.
pub(crate) const DAGS: &str = "dags";

/// Folder of Airflow's plugins in the DAG folder; also the prefix of the names of files in it.
pub(crate) const PLUGINS: &str = "plugins/";

/// Returns the path on the Volume of a file in the DAG folder.
pub(crate) fn on_volume(filename: &str) -> String {
    format!("/{DAGS}/{filename}")
}

/// The DAG folder as it was listed.
pub(super) struct DagFolder {
    entries: Vec<Entry>,
    /// The time just before the listing.
    pub listed_at: DateTime<Utc>,
}

impl DagFolder {
    /// Iterates over everything in the folder and its subfolders, by path relative to it.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().filter_map(|entry| {
            let path = entry.path.trim_start_matches('/').strip_prefix(DAGS)?.strip_prefix('/')?;
            Some((path, entry))
        })
    }
}

impl Deployed {
    /// Lists one page of the Python files in the DAG folder, without plugins, each with the scheduler's findings.
    pub async fn list_dag_files(&self, wanted: &ListDagFiles) -> Result<DagFileList> {
        let mut files = self.dag_files().await?;
        files.retain_mut(|file| is_wanted(file, wanted));
        let total_entries = files.len() as i64;
        let (offset, limit) = (wanted.offset.unwrap_or(0) as usize, limit(wanted.limit) as usize);
        Ok(DagFileList { files: files.into_iter().skip(offset).take(limit).collect(), total_entries })
    }

    /// Returns all Python files in the DAG folder, without plugins, by name.
    pub(super) async fn dag_files(&self) -> Result<Vec<DagFile>> {
        let folder = self.list_dag_folder().await?;
        let metadata = self.metadata().await?;
        let (mut found, mut errors) = (HashMap::<String, Vec<Dag>>::new(), HashMap::<String, ImportError>::new());
        let mut shadowed = HashMap::<String, Vec<ShadowedDag>>::new();
        for dag in dags::active(&metadata).await? {
            found.entry(dag.relative_fileloc.clone().unwrap_or_default()).or_default().push(dag);
        }
        for error in import_errors(&metadata).await? {
            errors.insert(error.filename.clone(), error);
        }
        let known = dags::known_files(&metadata).await;
        for definition in dags::definitions(&metadata).await {
            let dags::Definition { path, dag_id, defined_in } = definition;
            if path != defined_in {
                shadowed.entry(path).or_default().push(ShadowedDag { dag_id, defined_in });
            }
        }
        let mut files: Vec<DagFile> = folder.files().filter_map(python_file).collect();
        for file in &mut files {
            file.dags = found.remove(&file.filename).unwrap_or_default();
            file.is_known = known.contains(&file.filename);
            file.import_error = errors.remove(&file.filename);
            file.shadowed_dags = shadowed.remove(&file.filename).unwrap_or_default();
        }
        files.sort_by(|a, b| a.filename.cmp(&b.filename));
        Ok(files)
    }

    async fn list_dag_folder(&self) -> Result<DagFolder> {
        let listed_at = self.airflow.base.now();
        Ok(DagFolder { entries: self.volume().await?.list(&format!("/{DAGS}"), true).await?, listed_at })
    }

    /// Returns the content of a file in the DAG folder.
    pub async fn dag_file(&self, path: DagFilePath<'_>) -> Result<Vec<u8>> {
        let content = self.volume().await?.read(&on_volume(path.as_str())).await?;
        content.ok_or_else(|| Error::FileNotFound(path.as_str().to_owned(), self.name().clone()))
    }

    /// Validates a file and uploads it, all or nothing; then wakes the scheduler. If the request has a precondition,
    /// `is_expected` checks it first.
    ///
    /// # Errors
    /// `InvalidDagFile`; `FileExists` and `FileNotFound` depending on the mode; the errors of `is_expected`.
    pub async fn put_dag_file(
        &self,
        path: DagFilePath<'_>,
        content: Vec<u8>,
        mode: PutMode,
        is_expected: Option<impl FnOnce(Option<&[u8]>) -> Result<()>>,
    ) -> Result<DagFileChange> {
        let filename = path.as_str();
        check_size(filename, &content)?;
        let _files = self.airflow.files.lock(self.name()).await;
        let folder = self.list_dag_folder().await?;
        let existing = self.existing(filename, &folder, &content, is_expected).await?;
        let outcome = match (existing, mode) {
            (Existing::Same, _) => PutOutcome::Unchanged,
            (Existing::Other, PutMode::Create) => {
                return Err(Error::FileExists(filename.to_owned(), self.name().clone()));
            }
            (Existing::Missing, PutMode::Update) => {
                return Err(Error::FileNotFound(filename.to_owned(), self.name().clone()));
            }
            (Existing::Other, PutMode::Update) => PutOutcome::Updated,
            (Existing::Missing, PutMode::Create) => PutOutcome::Created,
        };
        let verdict = self.validate(filename, &content, &folder).await?;
        if outcome != PutOutcome::Unchanged {
            self.upload(vec![File { path: on_volume(filename), content: content.into() }]).await?;
        }
        // Also for an unchanged file: an earlier upload may have been interrupted before this step.
        self.notify_dags_changed().await?;
        let ids = verdict.dags.iter().map(|dag| dag.dag_id.clone()).collect();
        let mut warnings = verdict.warnings;
        match self.shared_with(filename, ids).await {
            Ok(shared) => warnings.extend(shared),
            // The upload succeeded even if the other files are unknown.
            Err(error) => tracing::warn!(error = chain(&error), "files that define the same DAGs are not known"),
        }
        if outcome != PutOutcome::Unchanged {
            let told = |message: &String| FileWarning { file: filename.to_owned(), message: message.clone() };
            let told: Vec<FileWarning> = warnings.iter().map(told).collect();
            self.record(EventKind::DagFilesUploaded, json!({"filenames": [filename], "warnings": told})).await;
        }
        Ok(DagFileChange { filename: filename.to_owned(), outcome, dags: verdict.dags, warnings })
    }

    /// Compares the file on the Volume with this content. Reads it only if the listing is not enough.
    async fn existing(
        &self,
        filename: &str,
        folder: &DagFolder,
        content: &[u8],
        is_expected: Option<impl FnOnce(Option<&[u8]>) -> Result<()>>,
    ) -> Result<Existing> {
        let listed = folder.files().find(|(path, entry)| *path == filename && entry.kind != EntryKind::Directory);
        let differs = |entry: &Entry| entry.kind == EntryKind::File && entry.size != content.len() as u64;
        let there = match listed {
            Some((_, entry)) if is_expected.is_none() && differs(entry) => return Ok(Existing::Other),
            Some(_) => self.volume().await?.read(&on_volume(filename)).await?,
            None => None,
        };
        if let Some(is_expected) = is_expected {
            is_expected(there.as_deref())?;
        }
        Ok(match there {
            None => Existing::Missing,
            Some(there) if there == content => Existing::Same,
            Some(_) => Existing::Other,
        })
    }

    /// Uploads files, all of them or none.
    pub(crate) async fn upload(&self, files: Vec<File>) -> Result<()> {
        self.using_objects(|| async { Ok(self.volume().await?.put(files.clone()).await?) }).await
    }

    /// Returns warnings about other files that define a DAG of this file, which was just uploaded.
    async fn shared_with(&self, filename: &str, ids: Vec<String>) -> Result<Vec<String>> {
        self.note_definitions([(filename.to_owned(), ids)]);
        if self.needs_definitions(&[filename]) {
            self.load_definitions().await?;
        }
        let shared = self.shared_ids();
        let pairs = shared.iter().filter(|it| it.files.iter().any(|it| it == filename)).flat_map(|it| {
            let others = it.files.iter().filter(|other| *other != filename);
            others.map(move |other| (it, filename, other.as_str()))
        });
        Ok(definitions::warnings(pairs).into_iter().map(|warning| warning.message).collect())
    }

    /// Removes a DAG file or a plugin; returns once the scheduler has parsed the remaining files. If the request has a
    /// precondition, `is_expected` checks it first.
    pub async fn delete_dag_file(
        &self,
        path: DagFilePath<'_>,
        is_expected: Option<impl FnOnce(Option<&[u8]>) -> Result<()>>,
    ) -> Result<DagFileDeletion> {
        let filename = path.as_str();
        let files = self.airflow.files.lock(self.name()).await;
        if let Some(is_expected) = is_expected {
            is_expected(self.volume().await?.read(&on_volume(filename)).await?.as_deref())?;
        }
        let deactivated = dags::active_in(&self.metadata().await?, filename).await?;
        let deactivated = deactivated.into_iter().map(|dag| dag.dag_id).collect();
        if !self.remove_dag_file(filename).await? {
            return Err(Error::FileNotFound(filename.to_owned(), self.name().clone()));
        }
        drop(files);
        self.refresh().await?;
        Ok(DagFileDeletion { filename: filename.to_owned(), deactivated })
    }

    /// Removes a file; returns whether it existed.
    pub(super) async fn remove_dag_file(&self, filename: &str) -> Result<bool> {
        if !self.volume().await?.remove(&on_volume(filename)).await? {
            return Ok(false);
        }
        self.note_definitions([(filename.to_owned(), Vec::new())]);
        self.record(EventKind::DagFilesRemoved, json!({"filenames": [filename]})).await;
        Ok(true)
    }
}

/// How the file on the Volume compares with an upload.
enum Existing {
    Missing,
    Same,
    Other,
}

/// Whether the file matches the query; drops the DAGs that do not match.
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

fn python_file((filename, entry): (&str, &Entry)) -> Option<DagFile> {
    let is_dag_file = filename.ends_with(".py") && !filename.starts_with(PLUGINS);
    (entry.kind == EntryKind::File && is_dag_file).then(|| DagFile {
        filename: filename.to_owned(),
        size: entry.size,
        modified_at: DateTime::from_timestamp(entry.modified.cast_signed(), 0),
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
    fn files_are_filtered_by_dags_and_import_errors() {
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
}
