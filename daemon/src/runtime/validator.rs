//! The warm validator: a Python process that has imported Airflow and forks a child for each file.
//!
//! It starts with the first file (that one waits for the import) and is started again if it dies.

use std::{path::Path, process::Stdio, time::Duration};

use airflow_serverless_api::dag::ValidatedDag;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    sync::Mutex,
    time::timeout,
};

use super::{Runtime, RuntimeError};

/// Longest import of one file.
const FILE_LIMIT: Duration = Duration::from_secs(30);
const MEMORY_LIMIT_MB: u32 = 2048;
/// The validator keeps the limit above itself; this is for one that hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(300);
/// Importing Airflow takes some ten seconds on a slow machine.
const START_LIMIT: Duration = Duration::from_secs(120);

/// What the validator says of a file.
#[derive(Clone, Debug, Deserialize)]
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

pub struct Validator {
    runtime: Runtime,
    /// Files are checked one at a time: each may take a core and much memory.
    process: Mutex<Option<Process>>,
}

struct Process {
    child: Child,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Validator {
    pub fn new(runtime: Runtime) -> Self {
        Self { runtime, process: Mutex::new(None) }
    }

    /// Imports a file of the DAG folder `root` as the scheduler would and says what is in it, or what is wrong with it.
    pub async fn validate(&self, path: &Path, root: &Path) -> Result<Verdict, RuntimeError> {
        let mut slot = self.process.lock().await;
        let mut process = match slot.take() {
            Some(process) => process,
            None => Process::start(&self.runtime).await?,
        };
        let answer = timeout(ANSWER_LIMIT, process.ask(path, root)).await;
        let failed = |reason: String| RuntimeError::Validator { file: file_name(path), reason };
        match answer {
            Ok(Ok(verdict)) => {
                // Only a process that answered well is kept; dropping one kills it.
                *slot = Some(process);
                Ok(verdict)
            }
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("no answer within {} s", ANSWER_LIMIT.as_secs()))),
        }
    }

    /// Ends the process, if one runs.
    pub async fn stop(&self) {
        if let Some(mut process) = self.process.lock().await.take()
            && let Err(error) = process.child.kill().await
        {
            tracing::warn!(%error, "the validator could not be stopped");
        }
    }
}

impl Process {
    async fn start(runtime: &Runtime) -> Result<Self, RuntimeError> {
        const TOOL: &str = "the DAG validator";
        let mut command = runtime.command();
        command.args(["-m", "airflow_serverless.dags.validator"]).stdin(Stdio::piped()).stderr(Stdio::null());
        command.envs(runtime.package_variables());
        let mut child = command.spawn().map_err(|source| RuntimeError::Start { tool: TOOL, source })?;
        let no_pipe = || RuntimeError::Tool { tool: TOOL, reason: "it has no pipes".into() };
        let stdin = child.stdin.take().ok_or_else(no_pipe)?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(no_pipe)?).lines();
        let mut process = Self { child, stdin, answers };
        let reason = match timeout(START_LIMIT, process.answers.next_line()).await {
            Ok(Ok(Some(_ready))) => return Ok(process),
            Ok(Ok(None)) => "it ended while starting".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it was not ready within {} s", START_LIMIT.as_secs()),
        };
        Err(RuntimeError::Tool { tool: TOOL, reason })
    }

    async fn ask(&mut self, path: &Path, root: &Path) -> std::io::Result<Verdict> {
        let question = json!({
            "path": path,
            "root": root,
            "timeout_seconds": FILE_LIMIT.as_secs(),
            "memory_mb": MEMORY_LIMIT_MB,
        });
        self.stdin.write_all(format!("{question}\n").as_bytes()).await?;
        let ended = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let answer = self.answers.next_line().await?.ok_or_else(ended)?;
        Ok(serde_json::from_str(&answer)?)
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
