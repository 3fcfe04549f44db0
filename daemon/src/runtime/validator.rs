//! The warm validator: a Python process that has imported Airflow and forks for each file.
//!
//! It starts with the first file (which waits for the import), ends when idle, and is restarted if it dies. Airflow
//! reads many options at import time, so environments with different options have separate processes.

mod process;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use airflow_serverless_api::{config::Options, dag::ValidatedDag};
use futures::future::join_all;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::{Mutex, Semaphore},
    time::Instant,
};

use self::process::{NoAnswer, Process};
use super::{Runtime, RuntimeError};

/// Limit on concurrent validations, if there are as many processors: each may use one, and much memory.
const MOST_AT_ONCE: usize = 4;

/// A request to import a file of the DAG folder `root` as the scheduler does.
#[derive(Clone, Copy)]
pub struct ValidationRequest<'a> {
    pub path: &'a Path,
    pub root: &'a Path,
    /// Whether the file is imported even if it does not mention DAGs.
    pub imports_all: bool,
    /// The environment's Airflow options by section, without secret ones.
    pub options: &'a BTreeMap<String, Options>,
    /// The names of the environment variables that the user has set.
    pub names: &'a [String],
    /// The environment's Variables, Connections and environment variables, if they were loaded.
    pub values: Option<&'a serde_json::Value>,
}

/// The result of validating a file.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Verdict {
    pub dags: Vec<ValidatedDag>,
    pub import_errors: Vec<Fault>,
    pub warnings: Vec<String>,
    /// The import requested a value, but the request had none: ignore all other fields.
    #[serde(default)]
    pub needs_values: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Fault {
    pub line: Option<u32>,
    pub message: String,
}

/// The validator of a daemon. Clones share it.
#[derive(Clone)]
pub struct Validator(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    /// Has a folder for each process, which is removed with it.
    work: PathBuf,
    idle: Duration,
    at_once: usize,
    permits: Semaphore,
    /// The processes by their options, as JSON.
    slots: Mutex<HashMap<String, Slot>>,
}

struct Slot {
    process: Arc<Process>,
    used: Instant,
}

impl Validator {
    /// Creates a validator that starts no process yet. `work` must be a folder of its own: leftovers in it are removed.
    /// A process ends after `idle` without a request.
    pub fn new(runtime: Runtime, work: PathBuf, idle: Duration) -> Self {
        if let Err(error) = std::fs::remove_dir_all(&work)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %work.display(), %error, "the validator's old files could not be removed");
        }
        let at_once = std::thread::available_parallelism().map_or(1, |count| count.get().min(MOST_AT_ONCE));
        let (permits, slots) = (Semaphore::new(at_once), Mutex::default());
        Self(Arc::new(Inner { runtime, work, idle, at_once, permits, slots }))
    }

    /// Imports a file and reports its DAGs or its import errors.
    pub async fn validate(&self, request: ValidationRequest<'_>) -> Result<Verdict, RuntimeError> {
        let path = request.path;
        let failed = |reason: String| RuntimeError::Validator { file: file_name(path), reason };
        let closed = |_| failed("the daemon stops".to_owned());
        let first = {
            let _permit = self.0.permits.acquire().await.map_err(closed)?;
            self.attempt(&request).await?
        };
        let reason = match first {
            Ok(verdict) => return Ok(verdict),
            Err(NoAnswer::Said(reason)) => return Err(failed(reason)),
            Err(NoAnswer::Ended) => "it ended",
            Err(NoAnswer::Late) => "it gave no answer",
        };
        tracing::warn!(file = %path.display(), reason, "the validator is started again");
        // Another file may have killed the process; alone, only this one can.
        let all = u32::try_from(self.0.at_once).unwrap_or(1);
        let _alone = self.0.permits.acquire_many(all).await.map_err(closed)?;
        match self.attempt(&request).await? {
            Ok(verdict) => Ok(verdict),
            Err(NoAnswer::Said(reason)) => Err(failed(reason)),
            Err(NoAnswer::Ended) => Ok(Verdict::refusal("importing the file ends the process that imports it")),
            Err(NoAnswer::Late) => Ok(Verdict::refusal("importing the file keeps the validator from answering")),
        }
    }

    /// Returns how many files can be validated at once.
    pub fn at_once(&self) -> usize {
        self.0.at_once
    }

    async fn attempt(&self, request: &ValidationRequest<'_>) -> Result<Result<Verdict, NoAnswer>, RuntimeError> {
        let options = json!(request.options).to_string();
        let process = self.process(&options).await?;
        let answer = process.ask(request).await;
        let mut slots = self.0.slots.lock().await;
        if let Some(slot) = slots.get_mut(&options)
            && Arc::ptr_eq(&slot.process, &process)
        {
            slot.used = Instant::now();
            if matches!(answer, Err(NoAnswer::Ended | NoAnswer::Late)) {
                slots.remove(&options);
                process.stop().await;
            }
        }
        Ok(answer)
    }

    async fn process(&self, options: &str) -> Result<Arc<Process>, RuntimeError> {
        let mut slots = self.0.slots.lock().await;
        if let Some(slot) = slots.get_mut(options)
            && slot.process.is_running()
        {
            slot.used = Instant::now();
            return Ok(slot.process.clone());
        }
        let process = Arc::new(Process::start(&self.0.runtime, &self.0.work, options, self.0.at_once).await?);
        slots.insert(options.to_owned(), Slot { process: process.clone(), used: Instant::now() });
        tokio::spawn(end_when_idle(Arc::downgrade(&self.0), options.to_owned(), process.clone()));
        Ok(process)
    }

    /// Stops all processes for good.
    pub async fn stop(&self) {
        self.0.permits.close();
        let slots = std::mem::take(&mut *self.0.slots.lock().await);
        join_all(slots.values().map(|slot| slot.process.stop())).await;
    }
}

/// Stops an idle process: it uses more memory than the rest of the daemon.
async fn end_when_idle(validator: Weak<Inner>, options: String, process: Arc<Process>) {
    loop {
        let Some(inner) = validator.upgrade() else { return };
        let mut slots = inner.slots.lock().await;
        let Some(slot) = slots.get(&options).filter(|slot| Arc::ptr_eq(&slot.process, &process)) else { return };
        let idle_at = slot.used + inner.idle;
        let is_asked = inner.permits.available_permits() < inner.at_once;
        if idle_at <= Instant::now() && !is_asked {
            slots.remove(&options);
            tracing::debug!("the validator is idle, and ends");
            process.stop().await;
            return;
        }
        let wait = if is_asked { inner.idle } else { idle_at.saturating_duration_since(Instant::now()) };
        drop(slots);
        drop(inner);
        tokio::time::sleep(wait).await;
    }
}

impl Verdict {
    fn refusal(message: &str) -> Self {
        Self { import_errors: vec![Fault { line: None, message: message.to_owned() }], ..Self::default() }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
