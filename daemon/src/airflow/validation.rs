//! Validates files before they are uploaded: the validator imports them as the scheduler does.

use std::path::{Path, PathBuf};

use airflow_serverless_api::problem::Fault;

use super::{
    Deployed,
    dag_files::{DagFolder, PLUGINS},
};
use crate::{
    error::{Error, Result},
    runtime::{ValidationRequest, Verdict},
};

impl Deployed {
    /// Returns how many files can be validated at once.
    pub(crate) fn validations_at_once(&self) -> usize {
        self.airflow.validator.at_once()
    }

    /// Imports a file of the DAG folder `root` as the scheduler does, with the environment's Variables, Connections and
    /// environment variables. A file that does not mention DAGs is imported only if `imports_all` is set.
    pub(crate) async fn validate_file(&self, path: &Path, root: &Path, imports_all: bool) -> Result<Verdict> {
        let (validator, config) = (&self.airflow.validator, &self.environment.config);
        let names: Vec<String> = config.secret_variables().map(|variable| variable.name).collect();
        let known = self.airflow.values.cached(self.name());
        let options = &config.airflow.options;
        let values = known.as_deref();
        let request = ValidationRequest { path, root, imports_all, options, names: &names, values };
        let verdict = validator.validate(request).await?;
        if !verdict.needs_values {
            return Ok(verdict);
        }
        let values = self.values().await?;
        Ok(validator.validate(ValidationRequest { values: Some(&values), ..request }).await?)
    }

    /// Imports the content under its own file name, so that messages show the name that the user knows. The plugins on
    /// the Volume lie next to it, as in the listed DAG folder.
    pub(super) async fn validate(&self, filename: &str, content: &[u8], folder: &DagFolder) -> Result<Verdict> {
        let scratch = ScratchFolder::new(self.airflow.scratch.join(uuid::Uuid::now_v7().to_string()))?;
        for (path, content) in self.plugins(folder).await? {
            scratch.write(&path, &content)?;
        }
        let path = scratch.write(filename, content)?;
        let verdict = self.validate_file(&path, &scratch.0, true).await?;
        let mut faults: Vec<Fault> = verdict
            .import_errors
            .iter()
            .map(|fault| Fault {
                location: filename.to_owned(),
                line: fault.line,
                message: fault.message.replace(&format!("{}/", scratch.0.display()), ""),
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

/// Whether the scheduler would import a file (`mentions_dags` in `dags/storage.py`).
fn mentions_dags(content: &[u8]) -> bool {
    let text = content.to_ascii_lowercase();
    let has = |word: &[u8]| text.windows(word.len()).any(|window| window == word);
    has(b"dag") || has(b"airflow")
}

/// Removes the scratch folders that a killed daemon left behind.
pub(super) fn sweep(scratch: &Path) {
    if let Err(error) = std::fs::remove_dir_all(scratch)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %scratch.display(), %error, "old scratch folders could not be removed");
    }
}

/// A folder that is removed when this is dropped.
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
