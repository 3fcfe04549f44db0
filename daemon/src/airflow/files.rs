//! DAG files: checked here, kept on the Volume.

use std::path::{Path, PathBuf};

use airflow_serverless_api::{
    dag::{DagFileChange, PutMode, PutOutcome},
    environment::EnvironmentName,
    problem::Fault,
};
use modal_client::File;

use super::{Airflow, DAGS};
use crate::{
    error::{Error, Result},
    runtime::Verdict,
};

/// Largest DAG file. Airflow parses it on each change: a file near this size is data in the wrong place.
pub const MAX_FILE_BYTES: usize = 4 << 20;

const MAX_NAME: usize = 200;

impl Airflow {
    /// Validates a file and puts it on the Volume, all or nothing; then wakes the scheduler.
    pub async fn put_dag_file(
        &self,
        environment: &EnvironmentName,
        filename: &str,
        content: Vec<u8>,
        mode: PutMode,
    ) -> Result<DagFileChange> {
        check_name(filename)?;
        check_size(filename, &content)?;
        let _files = self.files.lock().await;
        let volume = self.volume(environment).await?;
        let path = format!("/{DAGS}/{filename}");
        let existing = volume.read(&path).await?;
        let outcome = match (&existing, mode) {
            (Some(old), _) if *old == content => PutOutcome::Unchanged,
            (Some(_), PutMode::Create) => return Err(Error::FileExists(filename.to_owned(), environment.clone())),
            (None, PutMode::Update) => return Err(Error::FileNotFound(filename.to_owned(), environment.clone())),
            (Some(_), PutMode::Update) => PutOutcome::Updated,
            (None, PutMode::Create) => PutOutcome::Created,
        };
        let verdict = self.validate(filename, &content).await?;
        if outcome != PutOutcome::Unchanged {
            volume.put(vec![File { path, content }]).await?;
            self.wake_scheduler(environment, "upload").await?;
        }
        Ok(DagFileChange { filename: filename.to_owned(), outcome, dags: verdict.dags, warnings: verdict.warnings })
    }

    /// Imports the content under its own name, so that messages speak of the file as the user knows it.
    async fn validate(&self, filename: &str, content: &[u8]) -> Result<Verdict> {
        let folder = ScratchFolder::new(self.scratch.join(uuid::Uuid::now_v7().to_string()))?;
        let path = folder.write(filename, content)?;
        let verdict = self.validator.validate(&path).await?;
        let mut faults: Vec<Fault> = verdict
            .import_errors
            .iter()
            .map(|fault| Fault {
                location: filename.to_owned(),
                line: fault.line,
                message: fault.message.replace(&format!("{}/", folder.0.display()), ""),
            })
            .collect();
        if faults.is_empty() && verdict.dags.is_empty() {
            faults.push(Fault::new(filename, "the file defines no DAG: create one at the top level of the module"));
        }
        if faults.is_empty() { Ok(verdict) } else { Err(Error::InvalidDagFile { file: filename.to_owned(), faults }) }
    }
}

fn check_name(filename: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let fault = if !filename.ends_with(".py") {
        "it must end in .py"
    } else if filename.starts_with('.') {
        "it must not start with a dot"
    } else if filename.len() > MAX_NAME {
        "it is longer than 200 characters"
    } else if !filename.chars().all(allowed) {
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

/// A folder that is gone with its owner, whatever happens in between.
struct ScratchFolder(PathBuf);

impl ScratchFolder {
    fn new(path: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&path).map_err(|source| files("creating", &path, source))?;
        Ok(Self(path))
    }

    fn write(&self, filename: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.0.join(filename);
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
        assert!(check_name("etl_2.daily-run.py").is_ok());
        for bad in
            ["etl.txt", ".hidden.py", "../etl.py", "a/b.py", "ä.py", "a b.py", "", &format!("{}.py", "x".repeat(200))]
        {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
