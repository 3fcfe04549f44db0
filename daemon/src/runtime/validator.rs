//! The warm validator: a Python process that has imported Airflow and forks a child for each file.
//!
//! It starts with the first file (that one waits for the import), ends when nobody has asked it for a while, and is
//! started again if it dies.

mod process;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use airflow_serverless_api::dag::ValidatedDag;
use serde::Deserialize;
use tokio::{
    sync::{Mutex, Semaphore},
    time::Instant,
};

use self::process::{NoAnswer, Process};
use super::{Runtime, RuntimeError};

/// Files that are checked at once, if there are as many processors: each may take one, and much memory.
const MOST_AT_ONCE: usize = 4;

/// What the validator says of a file.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Verdict {
    pub dags: Vec<ValidatedDag>,
    pub import_errors: Vec<Fault>,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Fault {
    pub line: Option<u32>,
    pub message: String,
}

/// Where the one validator of a daemon is to be had. Clones share it.
#[derive(Clone)]
pub struct Validator(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    /// Has a folder for each process. Whatever a process leaves there goes with it.
    work: PathBuf,
    idle: Duration,
    at_once: usize,
    permits: Semaphore,
    slot: Mutex<Slot>,
}

struct Slot {
    process: Option<Arc<Process>>,
    used: Instant,
}

impl Validator {
    /// `work` is a folder of its own: what is there was left by a daemon before, and is removed. A process that nobody
    /// has asked for `idle` ends.
    pub fn new(runtime: Runtime, work: PathBuf, idle: Duration) -> Self {
        if let Err(error) = std::fs::remove_dir_all(&work)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %work.display(), %error, "the validator's old files could not be removed");
        }
        let at_once = std::thread::available_parallelism().map_or(1, |count| count.get().min(MOST_AT_ONCE));
        let slot = Mutex::new(Slot { process: None, used: Instant::now() });
        Self(Arc::new(Inner { runtime, work, idle, at_once, permits: Semaphore::new(at_once), slot }))
    }

    /// Imports a file of the DAG folder `root` as the scheduler would and says what is in it, or what is wrong with it.
    pub async fn validate(&self, path: &Path, root: &Path) -> Result<Verdict, RuntimeError> {
        let failed = |reason: String| RuntimeError::Validator { file: file_name(path), reason };
        let closed = |_| failed("the daemon stops".to_owned());
        let first = {
            let _permit = self.0.permits.acquire().await.map_err(closed)?;
            self.attempt(path, root).await?
        };
        let reason = match first {
            Ok(verdict) => return Ok(verdict),
            Err(NoAnswer::Said(reason)) => return Err(failed(reason)),
            Err(NoAnswer::Ended) => "it ended",
            Err(NoAnswer::Late) => "it gave no answer",
        };
        tracing::warn!(file = %path.display(), reason, "the validator is started again");
        // It may have been another file that it died of; alone, there is only one that it can be.
        let all = u32::try_from(self.0.at_once).unwrap_or(1);
        let _alone = self.0.permits.acquire_many(all).await.map_err(closed)?;
        match self.attempt(path, root).await? {
            Ok(verdict) => Ok(verdict),
            Err(NoAnswer::Said(reason)) => Err(failed(reason)),
            Err(NoAnswer::Ended) => Ok(Verdict::refusal("importing the file ends the process that imports it")),
            Err(NoAnswer::Late) => Ok(Verdict::refusal("importing the file keeps the validator from answering")),
        }
    }

    /// How many files can be checked at once.
    pub fn at_once(&self) -> usize {
        self.0.at_once
    }

    async fn attempt(&self, path: &Path, root: &Path) -> Result<Result<Verdict, NoAnswer>, RuntimeError> {
        let process = self.process().await?;
        let answer = process.ask(path, root).await;
        let mut slot = self.0.slot.lock().await;
        slot.used = Instant::now();
        let is_current = slot.process.as_ref().is_some_and(|current| Arc::ptr_eq(current, &process));
        if matches!(answer, Err(NoAnswer::Ended | NoAnswer::Late)) && is_current {
            slot.process = None;
            process.stop().await;
        }
        Ok(answer)
    }

    async fn process(&self) -> Result<Arc<Process>, RuntimeError> {
        let mut slot = self.0.slot.lock().await;
        slot.used = Instant::now();
        if let Some(process) = &slot.process
            && process.is_running()
        {
            return Ok(process.clone());
        }
        let process = Arc::new(Process::start(&self.0.runtime, &self.0.work, self.0.at_once).await?);
        slot.process = Some(process.clone());
        slot.used = Instant::now();
        tokio::spawn(end_when_idle(Arc::downgrade(&self.0), process.clone()));
        Ok(process)
    }

    /// Ends the process, if one runs, for good.
    pub async fn stop(&self) {
        self.0.permits.close();
        if let Some(process) = self.0.slot.lock().await.process.take() {
            process.stop().await;
        }
    }
}

/// Ends a process that nobody has asked for a while: it has more memory than all else here.
async fn end_when_idle(validator: Weak<Inner>, process: Arc<Process>) {
    loop {
        let Some(inner) = validator.upgrade() else { return };
        let mut slot = inner.slot.lock().await;
        if !slot.process.as_ref().is_some_and(|current| Arc::ptr_eq(current, &process)) {
            return;
        }
        let idle_at = slot.used + inner.idle;
        let is_asked = inner.permits.available_permits() < inner.at_once;
        if idle_at <= Instant::now() && !is_asked {
            slot.process = None;
            tracing::debug!("the validator is idle, and ends");
            process.stop().await;
            return;
        }
        let wait = if is_asked { inner.idle } else { idle_at.saturating_duration_since(Instant::now()) };
        drop(slot);
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
