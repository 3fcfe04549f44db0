//! DAG files and plugins: checked here, kept on the Volume.

use std::path::{Component, Path, PathBuf};

use airflow_serverless_api::{
    dag::{DagFileChange, DagFileDeletion, PutMode, PutOutcome},
    environment::EnvironmentName,
    event::EventKind,
    problem::Fault,
    watch::FileWarning,
};
use modal_client::{EntryKind, File, Volume};
use serde_json::json;

use super::{Airflow, DAGS, definitions};
use crate::{
    error::{Error, Result},
    report::chain,
    runtime::{ValidationRequest, Verdict},
};

/// Folder of Airflow's plugins in that of the DAG files, and what names of files in there begin with.
pub(crate) const PLUGINS: &str = "plugins/";

/// Largest DAG file. Airflow parses it on each change: a file near this size is data in the wrong place.
pub const MAX_FILE_BYTES: usize = 4 << 20;

const MAX_NAME: usize = 200;
/// Of a file with the folders it is in, and of each of these, in bytes.
const MAX_PATH: usize = 1000;
const MAX_PART: usize = 255;

impl Airflow {
    /// Validates a file and puts it on the Volume, all or nothing, if what is there `is_expected`; then wakes the
    /// scheduler.
    pub async fn put_dag_file(
        &self,
        environment: &EnvironmentName,
        filename: &str,
        content: Vec<u8>,
        mode: PutMode,
        is_expected: impl FnOnce(Option<&[u8]>) -> Result<()>,
    ) -> Result<DagFileChange> {
        check_name(filename)?;
        check_size(filename, &content)?;
        let _files = self.files.lock(environment).await;
        let volume = self.volume(environment).await?;
        let path = format!("/{DAGS}/{filename}");
        let existing = volume.read(&path).await?;
        is_expected(existing.as_deref())?;
        let outcome = match (&existing, mode) {
            (Some(old), _) if *old == content => PutOutcome::Unchanged,
            (Some(_), PutMode::Create) => return Err(Error::FileExists(filename.to_owned(), environment.clone())),
            (None, PutMode::Update) => return Err(Error::FileNotFound(filename.to_owned(), environment.clone())),
            (Some(_), PutMode::Update) => PutOutcome::Updated,
            (None, PutMode::Create) => PutOutcome::Created,
        };
        let verdict = self.validate(environment, (&volume, filename), &content).await?;
        if outcome != PutOutcome::Unchanged {
            volume.put(vec![File { path, content }]).await?;
        }
        // Also for what was there already: whoever put it may have been cut off before.
        self.wake_scheduler(environment, "upload").await?;
        let ids = verdict.dags.iter().map(|dag| dag.dag_id.clone()).collect();
        let mut warnings = verdict.warnings;
        match self.shared_with(environment, filename, ids).await {
            Ok(shared) => warnings.extend(shared),
            // The file is uploaded, whatever is known of others.
            Err(error) => tracing::warn!(error = chain(&error), "files that define the same DAGs are not known"),
        }
        if outcome != PutOutcome::Unchanged {
            let told = |message: &String| FileWarning { file: filename.to_owned(), message: message.clone() };
            let told: Vec<FileWarning> = warnings.iter().map(told).collect();
            let data = json!({"filenames": [filename], "warnings": told});
            self.record(EventKind::DagFilesUploaded, environment, data).await;
        }
        Ok(DagFileChange { filename: filename.to_owned(), outcome, dags: verdict.dags, warnings })
    }

    /// Warnings of the other files that define a DAG of this one, which has just been uploaded.
    async fn shared_with(
        &self,
        environment: &EnvironmentName,
        filename: &str,
        ids: Vec<String>,
    ) -> Result<Vec<String>> {
        self.note_definitions(environment, [(filename.to_owned(), ids)]).await?;
        self.load_definitions(environment).await?;
        let shared = self.shared_ids(environment).await?;
        let pairs = shared.iter().filter(|it| it.files.iter().any(|it| it == filename)).flat_map(|it| {
            let others = it.files.iter().filter(|other| *other != filename);
            others.map(move |other| (it, filename, other.as_str()))
        });
        let warnings = definitions::warnings(pairs).into_iter().map(|warning| warning.message).collect();
        Ok(warnings)
    }

    /// Removes a DAG file or a plugin, if what is there `is_expected`; returns once scheduler tick done at what is
    /// left.
    pub async fn delete_dag_file(
        &self,
        environment: &EnvironmentName,
        filename: &str,
        is_expected: impl FnOnce(Option<&[u8]>) -> Result<()>,
    ) -> Result<DagFileDeletion> {
        check_path(filename)?;
        let files = self.files.lock(environment).await;
        let existing = self.volume(environment).await?.read(&format!("/{DAGS}/{filename}")).await?;
        is_expected(existing.as_deref())?;
        if existing.is_none() {
            return Err(Error::FileNotFound(filename.to_owned(), environment.clone()));
        }
        let deactivated = self.dags_of_file(environment, filename).await?;
        self.remove_dag_file(environment, filename).await?;
        drop(files);
        self.refresh(environment).await?;
        Ok(DagFileDeletion { filename: filename.to_owned(), deactivated })
    }

    pub(super) async fn remove_dag_file(&self, environment: &EnvironmentName, filename: &str) -> Result<()> {
        self.volume(environment).await?.remove(&format!("/{DAGS}/{filename}")).await?;
        self.note_definitions(environment, [(filename.to_owned(), Vec::new())]).await?;
        self.record(EventKind::DagFilesRemoved, environment, json!({"filenames": [filename]})).await;
        Ok(())
    }

    /// The Volume with the DAG files of an environment that is deployed.
    pub(crate) async fn dag_volume(&self, environment: &EnvironmentName) -> Result<Volume> {
        self.volume(environment).await
    }

    /// Tells the scheduler that DAG files have changed.
    pub(crate) async fn dags_changed(&self, environment: &EnvironmentName) -> Result<()> {
        self.wake_scheduler(environment, "upload").await
    }

    /// How many files can be validated at once.
    pub(crate) fn validations_at_once(&self) -> usize {
        self.validator.at_once()
    }

    /// Imports a file of the DAG folder `root` as the scheduler does, with the environment's Variables, Connections and
    /// environment variables. A file that does not mention DAGs is imported only if that `imports_all`.
    pub(crate) async fn validate_file(
        &self,
        environment: &EnvironmentName,
        path: &Path,
        root: &Path,
        imports_all: bool,
    ) -> Result<Verdict> {
        let config = self.registry.deployed_environment(environment).await?.config;
        let names: Vec<String> = config.secret_variables().map(|variable| variable.name).collect();
        let known = self.values.cached(environment);
        let options = &config.airflow.options;
        let values = known.as_deref();
        let request = ValidationRequest { path, root, imports_all, options, names: &names, values };
        let verdict = self.validator.validate(request).await?;
        if !verdict.needs_values {
            return Ok(verdict);
        }
        let values = self.values(environment).await?;
        Ok(self.validator.validate(ValidationRequest { values: Some(&values), ..request }).await?)
    }

    /// Imports the content under its own name, so that messages speak of the file as the user knows it, beside the
    /// plugins that are on the Volume.
    async fn validate(
        &self,
        environment: &EnvironmentName,
        (volume, filename): (&Volume, &str),
        content: &[u8],
    ) -> Result<Verdict> {
        let folder = ScratchFolder::new(self.scratch.join(uuid::Uuid::now_v7().to_string()))?;
        for (path, content) in plugins(volume).await? {
            folder.write(&path, &content)?;
        }
        let path = folder.write(filename, content)?;
        let verdict = self.validate_file(environment, &path, &folder.0, true).await?;
        let mut faults: Vec<Fault> = verdict
            .import_errors
            .iter()
            .map(|fault| Fault {
                location: filename.to_owned(),
                line: fault.line,
                message: fault.message.replace(&format!("{}/", folder.0.display()), ""),
            })
            .collect();
        let is_dag_file = !filename.starts_with(PLUGINS);
        if faults.is_empty() && verdict.dags.is_empty() && is_dag_file {
            faults.push(Fault::new(filename, "the file defines no DAG: create one at the top level of the module"));
        } else if faults.is_empty() && is_dag_file && !mentions_dags(content) {
            let message =
                "the scheduler ignores files that contain neither `dag` nor `airflow`: add the comment `# airflow`";
            faults.push(Fault::new(filename, message));
        }
        if faults.is_empty() { Ok(verdict) } else { Err(Error::InvalidDagFile { file: filename.to_owned(), faults }) }
    }
}

/// Whether the scheduler imports a file (`mentions_dags` in `dags/storage.py`).
fn mentions_dags(content: &[u8]) -> bool {
    let text = content.to_ascii_lowercase();
    let has = |word: &[u8]| text.windows(word.len()).any(|window| window == word);
    has(b"dag") || has(b"airflow")
}

/// All files of the plugins, by their paths in the DAG folder.
async fn plugins(volume: &Volume) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in volume.list(&format!("/{DAGS}/{PLUGINS}"), true).await? {
        let below = entry.path.trim_start_matches('/').strip_prefix(DAGS).map(|path| path.trim_start_matches('/'));
        let Some(path) = below.filter(|path| entry.kind == EntryKind::File && is_plain(path)) else { continue };
        if let Some(content) = volume.read(&format!("/{DAGS}/{path}")).await? {
            found.push((path.to_owned(), content));
        }
    }
    Ok(found)
}

/// Whether a path leads down only.
fn is_plain(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Where a file may be that a watch has uploaded.
pub(super) fn check_path(filename: &str) -> Result<()> {
    let fault = if !filename.ends_with(".py") {
        "it must end in .py"
    } else if filename.len() > MAX_PATH {
        "it is longer than 1000 bytes"
    } else if filename.split('/').any(|part| matches!(part, "" | "." | "..") || part.len() > MAX_PART) {
        "it must be a path from the DAG folder down, such as team/etl.py"
    } else if filename.chars().any(char::is_control) {
        "control characters are not allowed"
    } else {
        return Ok(());
    };
    Err(Error::InvalidFileName(filename.to_owned(), fault))
}

/// A name, or the name of a plugin behind that of its folder.
fn check_name(filename: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let name = filename.strip_prefix(PLUGINS).unwrap_or(filename);
    let fault = if !name.ends_with(".py") {
        "it must end in .py"
    } else if name.starts_with('.') {
        "it must not start with a dot"
    } else if name.len() > MAX_NAME {
        "it is longer than 200 characters"
    } else if !name.chars().all(allowed) {
        "only letters, digits, '_', '-' and '.' are allowed"
    } else {
        return Ok(());
    };
    Err(Error::InvalidFileName(filename.to_owned(), fault))
}

fn check_size(filename: &str, content: &[u8]) -> Result<()> {
    if content.len() <= MAX_FILE_BYTES {
        return Ok(());
    }
    let message =
        format!("the file is larger than {} MiB: keep data out of it and load it in a task", MAX_FILE_BYTES >> 20);
    Err(Error::InvalidDagFile { file: filename.to_owned(), faults: vec![Fault::new(filename, message)] })
}

/// Removes what a daemon that was killed has left in the folder of scratch folders.
pub(super) fn sweep(scratch: &Path) {
    if let Err(error) = std::fs::remove_dir_all(scratch)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %scratch.display(), %error, "old scratch folders could not be removed");
    }
}

/// A folder that is gone with its owner, whatever happens in between.
struct ScratchFolder(PathBuf);

impl ScratchFolder {
    fn new(path: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&path).map_err(|source| files("creating", &path, source))?;
        Ok(Self(path))
    }

    fn write(&self, filename: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.0.join(filename);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|source| files("creating", parent, source))?;
        }
        std::fs::write(&path, content).map_err(|source| files("writing", &path, source))?;
        Ok(path)
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a scratch folder was left behind");
        }
    }
}

fn files(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::Files { action, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_taken() {
        assert!(check_name("etl_2.daily-run.py").is_ok() && check_name("plugins/workday.py").is_ok());
        let long = format!("{}.py", "x".repeat(200));
        let strange = ["plugins/a.csv", "plugins/../etl.py", "plugins/a/b.py", "plugins/.py"];
        for bad in ["etl.txt", ".hidden.py", "../etl.py", "a/b.py", "ä.py", "a b.py", "", &long].iter().chain(&strange)
        {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert!(check_path("team/ä b/etl.py").is_ok() && check_path("plugins/workday.py").is_ok());
        for bad in ["", "etl.txt", "/etl.py", "../etl.py", "a/../etl.py", "a//etl.py", "./etl.py", "a/\0.py"] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
    }
}
