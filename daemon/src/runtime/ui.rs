//! The process that runs a UI on Modal with the unmodified SDK, as long as its standard input is open.

use std::{process::Stdio, time::Duration};

use airflow_serverless_api::{config::Config, environment::EnvironmentName};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdin, ChildStdout},
    time::timeout,
};

use super::{Runtime, RuntimeError};
use crate::modal::Server;

const TOOL: &str = "modal run";
/// Time limit for stopping its app after the end of its input.
const END_LIMIT: Duration = Duration::from_secs(15);

/// Exit code of a process that has printed the reason for its failure.
const FAILED: i32 = 1;

/// A message of the process.
pub enum UiWord {
    Progress(String),
    /// The id of its app.
    App(String),
    /// The URL at which Airflow responds.
    Url(String),
    /// The reason why it ends on its own.
    End(String),
}

/// The format of its output lines.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    AppId(String),
    Url(String),
}

pub struct UiProcess {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
    last_words: String,
}

impl Runtime {
    /// Starts the UI of an environment on a Modal server.
    pub fn start_ui(
        &self,
        environment: &EnvironmentName,
        config: &Config,
        server: &Server,
    ) -> Result<UiProcess, RuntimeError> {
        let mut command = self.sdk_command("airflow_serverless.serve_ui", environment, config, server);
        // Ctrl-C on the daemon's terminal must not reach it: the daemon decides when it ends.
        command.stdin(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(|source| RuntimeError::Start { tool: TOOL, source })?;
        let no_pipe = || RuntimeError::Tool { tool: TOOL, reason: "it has no pipes".to_owned() };
        Ok(UiProcess {
            stdin: child.stdin.take().ok_or_else(no_pipe)?,
            stdout: BufReader::new(child.stdout.take().ok_or_else(no_pipe)?).lines(),
            stderr: BufReader::new(child.stderr.take().ok_or_else(no_pipe)?).lines(),
            child,
            last_words: String::new(),
        })
    }
}

impl UiProcess {
    /// Waits for the next message. Cancel safe.
    pub async fn next(&mut self) -> UiWord {
        loop {
            let line = tokio::select! {
                biased;
                // Read to the end: the last lines have the reason for a failure.
                Ok(Some(line)) = self.stderr.next_line() => {
                    let line = line.trim();
                    if line.is_empty() {
                        continue;
                    }
                    line.clone_into(&mut self.last_words);
                    return UiWord::Progress(line.to_owned());
                }
                Ok(Some(line)) = self.stdout.next_line() => line,
                else => return UiWord::End(self.reason().await),
            };
            match serde_json::from_str(&line) {
                Ok(Line::AppId(id)) => return UiWord::App(id),
                Ok(Line::Url(url)) => return UiWord::Url(url),
                // The line may contain the token, so it is not logged.
                Err(_) => tracing::warn!("the process of a UI printed a line that is not understood"),
            }
        }
    }

    /// Returns why it has ended on its own: its last message, or else its exit status.
    async fn reason(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) if status.code() == Some(FAILED) && !self.last_words.is_empty() => self.last_words.clone(),
            Ok(status) => format!("its process ended ({status})"),
            Err(error) => format!("its process cannot be waited for: {error}"),
        }
    }

    /// Asks the process to end, and kills it at the time limit. Returns whether it has stopped its app.
    pub async fn end(mut self) -> bool {
        drop(self.stdin);
        // Keep reading its output, so that it cannot block.
        let speech = async { while let Ok(Some(_)) = self.stderr.next_line().await {} };
        let ended = async { tokio::join!(self.child.wait(), speech).0 };
        match timeout(END_LIMIT, ended).await {
            Ok(Ok(status)) => status.success(),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the process of a UI cannot be waited for");
                false
            }
            Err(_) => {
                tracing::warn!("the process of a UI has not ended within {} s, and is killed", END_LIMIT.as_secs());
                if let Err(error) = self.child.kill().await {
                    tracing::warn!(%error, "the process of a UI could not be killed");
                }
                false
            }
        }
    }
}
