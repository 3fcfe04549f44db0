//! The Python side on this machine: the pinned runtime, the functions to deploy, and the validator.
//!
//! The binary contains the package `airflow_serverless` and its lock file, so that a daemon always deploys the
//! functions that it was built with.

mod deploy;
mod python;
mod source;
mod ui;
mod validator;

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use airflow_serverless_api::{home::Home, variables};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
    time::timeout,
};

pub use ui::{UiProcess, UiWord};
pub use validator::{Fault, ValidationRequest, Validator, Verdict};

use crate::progress::Progress;

/// Time limit for one run of a tool, such as a deployment that builds an image.
const LONGEST_RUN: Duration = Duration::from_secs(3600);

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error(
        "no Python 3.11 or newer with the venv module (on Debian in the package python3-venv) was found as {tried}: \
         install one, or set AIRFLOW_SERVERLESS_PYTHON to it"
    )]
    NoPython { tried: String },
    #[error("{tool} failed: {reason}")]
    Tool { tool: &'static str, reason: String },
    #[error("{tool} cannot be started")]
    Start { tool: &'static str, source: std::io::Error },
    #[error("{action} {path} failed")]
    Files { action: &'static str, path: String, source: std::io::Error },
    #[error("validating {file} failed: {reason}")]
    Validator { file: String, reason: String },
}

/// The location of the Python runtime on disk.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// The virtual environment; its name carries the hash of the lock file.
    venv: PathBuf,
    /// The folder that holds the package, for PYTHONPATH; its name carries the hash of the package. It lies next to the
    /// virtual environment, so that installations that share one also share compiled bytecode.
    functions: PathBuf,
    uv_cache: PathBuf,
    /// Additional packages that DAG files require, managed by the validator.
    packages: PathBuf,
}

impl Runtime {
    pub fn new(home: &Home) -> Self {
        let shared = std::env::var_os(variables::RUNTIMES).filter(|value| !value.is_empty());
        let runtimes = shared.map_or_else(|| home.data.join("runtime"), PathBuf::from);
        Self {
            venv: runtimes.join(source::lock_hash()),
            functions: runtimes.join("functions").join(source::package_hash()),
            uv_cache: home.cache.join("uv"),
            packages: home.cache.join("venvs"),
        }
    }

    /// Returns a hash of the functions that this daemon deploys.
    pub fn functions_hash(&self) -> String {
        source::package_hash()
    }

    /// Returns the interpreter; it exists once [`Runtime::ensure`] has succeeded.
    pub fn interpreter(&self) -> PathBuf {
        self.venv.join("bin").join("python")
    }

    /// Returns the variables for installing additional packages, including the user's own settings for package indexes.
    fn package_variables(&self) -> Vec<(OsString, OsString)> {
        let is_theirs = |name: &OsString| name.to_str().is_some_and(variables::is_of_packages);
        let mut variables: Vec<_> = std::env::vars_os().filter(|(name, _)| is_theirs(name)).collect();
        variables.push(("UV_CACHE_DIR".into(), self.uv_cache.clone().into()));
        variables.push(("AIRFLOW_SERVERLESS_VENVS".into(), self.packages.clone().into()));
        variables
    }

    /// Builds a command of the runtime's Python with the package importable and a clean environment: the user's Modal
    /// credentials and Airflow settings must not leak into it.
    fn command(&self) -> Command {
        let mut command = Command::new(self.interpreter());
        command.env_clear().env("PYTHONPATH", &self.functions).env("PYTHONUNBUFFERED", "1");
        for name in ["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

/// Builds a command without standard input.
fn tool(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// Runs a tool, shows its stderr as progress, and returns its stdout. Kills it at the time limit.
async fn run(tool: &'static str, command: Command, progress: &Progress) -> Result<String, RuntimeError> {
    let late = || format!("it was not done within {} minutes", LONGEST_RUN.as_secs() / 60);
    let ended = timeout(LONGEST_RUN, run_to_its_end(tool, command, progress)).await;
    ended.unwrap_or_else(|_| Err(RuntimeError::Tool { tool, reason: late() }))
}

async fn run_to_its_end(tool: &'static str, mut command: Command, progress: &Progress) -> Result<String, RuntimeError> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|source| RuntimeError::Start { tool, source })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // Held until the process ends, as `wait` would close it.
    let _stdin = child.stdin.take();
    let (stdout, last_words) = tokio::join!(
        async {
            let mut text = String::new();
            if let Some(mut stdout) = stdout {
                tokio::io::AsyncReadExt::read_to_string(&mut stdout, &mut text).await?;
            }
            Ok::<_, std::io::Error>(text)
        },
        follow(stderr, progress),
    );
    let failed = |source| RuntimeError::Start { tool, source };
    let status = child.wait().await.map_err(failed)?;
    if status.success() {
        stdout.map_err(failed)
    } else {
        let reason = if last_words.is_empty() { status.to_string() } else { last_words };
        Err(RuntimeError::Tool { tool, reason })
    }
}

/// Shows each line as progress; returns the last ones, which usually have the reason for a failure.
async fn follow(stream: Option<impl AsyncRead + Unpin>, progress: &Progress) -> String {
    const KEPT: usize = 5;
    let mut last = std::collections::VecDeque::with_capacity(KEPT);
    if let Some(stream) = stream {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let line = line.trim_end();
            // uv ends with a list of all packages; its earlier lines are more useful.
            if line.is_empty() || line.starts_with(" + ") {
                continue;
            }
            progress.detail(line);
            if last.len() == KEPT {
                last.pop_front();
            }
            last.push_back(line.to_owned());
        }
    }
    Vec::from(last).join("\n")
}
