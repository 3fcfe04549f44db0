//! One Python process: requests go in, responses come out in any order.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Runtime, RuntimeError, ValidationRequest, Verdict};

/// Longest import of one file.
const FILE_LIMIT: Duration = Duration::from_secs(30);
const MEMORY_LIMIT_MB: u32 = 2048;
/// Period at which a validator with a pending response is resumed (SIGCONT).
const RESUME_PERIOD: Duration = Duration::from_secs(2);
/// The validator enforces its own limits, including the one for package installations; this one is for a hung process.
const ANSWER_LIMIT: Duration = Duration::from_secs(330);
/// Importing Airflow takes some ten seconds on a slow machine.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Time limit for ending its children after the end of its input.
const END_LIMIT: Duration = Duration::from_secs(5);
/// The validator truncates its messages; this limit is for a process that user code has broken.
const LONGEST_LINE: u64 = 16 << 20;

/// Why there is no response.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The process ended before it answered.
    Ended,
    /// It did not respond in time.
    Late,
    /// It reported an error.
    Said(String),
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

#[derive(Deserialize)]
struct Answer {
    id: Option<u64>,
    error: Option<String>,
    #[serde(flatten)]
    verdict: Option<Verdict>,
}

pub(super) struct Process {
    pid: Option<rustix::process::Pid>,
    stdin: tokio::sync::Mutex<ChildStdin>,
    waiting: Waiting,
    next_id: AtomicU64,
    stop: CancellationToken,
    ended: CancellationToken,
    supervisor: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Process {
    /// Starts a process and waits until it has imported Airflow with its `options`, in JSON. It works in its own folder
    /// below `work`.
    pub async fn start(runtime: &Runtime, work: &Path, options: &str, at_once: usize) -> Result<Self, RuntimeError> {
        const TOOL: &str = "the DAG validator";
        let failed = |reason: String| RuntimeError::Tool { tool: TOOL, reason };
        let folder = work.join(uuid::Uuid::now_v7().simple().to_string());
        let files = |source| RuntimeError::Files { action: "creating", path: folder.display().to_string(), source };
        std::fs::create_dir_all(&folder).map_err(files)?;
        let folder = Folder(folder);
        let mut command = runtime.command();
        command
            .args(["-m", "airflow_serverless.dags.validator", "--workers", &at_once.to_string()])
            .env("AIRFLOW_SERVERLESS_SETTINGS", format!(r#"{{"environment": "validator", "airflow": {options}}}"#))
            .envs(runtime.package_variables())
            // All temporary files, including those of user code, are removed with the folder.
            .env("TMPDIR", &folder.0)
            .stdin(Stdio::piped())
            // Ctrl-C on the daemon's terminal must not reach it.
            .process_group(0);
        let mut child = command.spawn().map_err(|source| RuntimeError::Start { tool: TOOL, source })?;
        let no_pipe = || failed("it has no pipes".to_owned());
        let stdin = child.stdin.take().ok_or_else(no_pipe)?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or_else(no_pipe)?);
        tokio::spawn(log(child.stderr.take().ok_or_else(no_pipe)?));
        match timeout(START_LIMIT, line(&mut stdout)).await {
            Ok(Ok(Some(_ready))) => {}
            Ok(Ok(None)) => return Err(failed("it ended while starting".to_owned())),
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed(format!("it was not ready within {} s", START_LIMIT.as_secs()))),
        }
        let pid = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
        let (waiting, stop, ended) = (Waiting::default(), CancellationToken::new(), CancellationToken::new());
        let supervised = supervise(child, stdout, waiting.clone(), (stop.clone(), ended.clone()), folder);
        let supervisor = tokio::sync::Mutex::new(Some(tokio::spawn(supervised)));
        let stdin = tokio::sync::Mutex::new(stdin);
        Ok(Self { pid, stdin, waiting, next_id: AtomicU64::new(0), stop, ended, supervisor })
    }

    pub fn is_running(&self) -> bool {
        !self.ended.is_cancelled() && !self.stop.is_cancelled()
    }

    pub async fn ask(&self, request: &ValidationRequest<'_>) -> Result<Verdict, NoAnswer> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().insert(id, sender);
        let _forget = Forget { waiting: &self.waiting, id };
        let question = json!({
            "id": id,
            "path": request.path,
            "root": request.root,
            "names": request.names,
            "imports_all": request.imports_all,
            "values": request.values,
            "timeout_seconds": FILE_LIMIT.as_secs(),
            "memory_mb": MEMORY_LIMIT_MB,
        });
        let written = self.stdin.lock().await.write_all(format!("{question}\n").as_bytes()).await;
        // It may have ended since the last check: then no response will come.
        if written.is_err() || !self.is_running() {
            return Err(NoAnswer::Ended);
        }
        match timeout(ANSWER_LIMIT, self.resumed_until(answer)).await {
            Ok(Ok(Answer { error: Some(error), .. })) => Err(NoAnswer::Said(error)),
            Ok(Ok(Answer { verdict: Some(verdict), .. })) => Ok(verdict),
            Ok(Ok(Answer { verdict: None, .. })) => Err(NoAnswer::Said("the answer is not a verdict".to_owned())),
            Ok(Err(_)) => Err(NoAnswer::Ended),
            Err(_) => Err(NoAnswer::Late),
        }
    }

    /// Waits for a response. Imported code can suspend the validator, so it is resumed periodically.
    async fn resumed_until<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, oneshot::error::RecvError> {
        tokio::pin!(answer);
        loop {
            match timeout(RESUME_PERIOD, &mut answer).await {
                Ok(answer) => return answer,
                Err(_) => self.signal(rustix::process::Signal::CONT),
            }
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        // Not reaped before its end is recorded, so the pid is still its own.
        if let Some(pid) = self.pid.filter(|_| self.is_running()) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Stops the process, and returns once it and its files are gone.
    pub async fn stop(&self) {
        self.stop.cancel();
        if let Some(supervisor) = self.supervisor.lock().await.take()
            && let Err(error) = supervisor.await
        {
            tracing::error!(%error, "the validator's supervisor failed");
        }
    }
}

/// Removes the waiter of a dropped request.
struct Forget<'a> {
    waiting: &'a Waiting,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.id);
    }
}

/// A folder that is removed when this is dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "the validator left files behind");
        }
    }
}

/// Delivers responses until the process ends or is stopped.
async fn supervise(
    mut child: Child,
    mut stdout: BufReader<ChildStdout>,
    waiting: Waiting,
    (stop, ended): (CancellationToken, CancellationToken),
    folder: Folder,
) {
    let pid = child.id();
    tracing::debug!(pid, "the validator is ready");
    let reading = async {
        loop {
            match line(&mut stdout).await {
                Ok(Some(line)) if deliver(&waiting, &line) => {}
                // Not a valid response: its waiter would wait forever.
                Ok(Some(_)) => return,
                Ok(None) => return,
                Err(error) => return tracing::warn!(%error, "the validator cannot be understood"),
            }
        }
    };
    let is_told = tokio::select! {
        () = reading => false,
        () = stop.cancelled() => true,
    };
    ended.cancel();
    waiting.lock().clear();
    if is_told {
        // On SIGTERM it stops its children first; if it is killed, they end on their own.
        if let Some(pid) = pid.and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if timeout(END_LIMIT, child.wait()).await.is_err()
            && let Err(error) = child.kill().await
        {
            tracing::warn!(%error, "the validator could not be stopped");
        }
    } else if let Err(error) = child.kill().await {
        tracing::warn!(%error, "the validator could not be stopped");
    } else {
        tracing::warn!(pid, "the validator ended");
    }
    drop(folder);
}

/// Delivers a response; `false` if the line is not one.
fn deliver(waiting: &Waiting, line: &str) -> bool {
    match serde_json::from_str::<Answer>(line) {
        Ok(answer) => {
            let id = answer.id.unwrap_or(u64::MAX);
            if let Some(sender) = waiting.lock().remove(&id) {
                // Whoever asked may have gone.
                let _ = sender.send(answer);
            }
            true
        }
        Err(error) => {
            tracing::warn!(%error, "invalid answer from the validator");
            false
        }
    }
}

/// Reads the next line; `None` at the end, an error for one that is too long to be a response.
async fn line(stream: &mut (impl AsyncBufReadExt + Unpin)) -> std::io::Result<Option<String>> {
    let mut line = String::new();
    let read = stream.take(LONGEST_LINE).read_line(&mut line).await?;
    match line.ends_with('\n') {
        true => Ok(Some(line)),
        false if read as u64 == LONGEST_LINE => Err(std::io::Error::other("an answer is too long")),
        false => Ok(None),
    }
}

/// Logs its other output, for debugging.
async fn log(stream: impl AsyncRead + Unpin) {
    const LONGEST: u64 = 8 << 10;
    let mut stream = BufReader::new(stream);
    let mut text = Vec::new();
    loop {
        text.clear();
        match (&mut stream).take(LONGEST).read_until(b'\n', &mut text).await {
            Ok(0) | Err(_) => return,
            Ok(_) => tracing::debug!(target: "airflowd::validator", "{}", String::from_utf8_lossy(&text).trim_end()),
        }
    }
}
