//! The process that runs a UI on Modal, by the unmodified SDK, for as long as its standard input is open.

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
/// How long it may take to end its app once its input has ended.
const END_LIMIT: Duration = Duration::from_secs(15);

/// Its status if it says why it failed.
const FAILED: i32 = 1;

/// What the process tells.
pub enum UiWord {
    Progress(String),
    /// The id of the app that it runs.
    App(String),
    /// Airflow answers there.
    Url(String),
    /// Why it ends by itself.
    End(String),
}

/// The form of the lines of its standard output.
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
        // A Ctrl-C on the daemon's terminal is not meant for it: the daemon tells it when to end.
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
    /// Waits for the next word. Nothing is lost if the waiting is given up.
    pub async fn next(&mut self) -> UiWord {
        loop {
            let line = tokio::select! {
                biased;
                // Until its end: what a process prints last says why it ended.
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
                // It may hold the token, so it is not repeated.
                Err(_) => tracing::warn!("the process of a UI printed a line that is not understood"),
            }
        }
    }

    /// Why it has ended by itself: its last words if they say so, or what became of it.
    async fn reason(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) if status.code() == Some(FAILED) && !self.last_words.is_empty() => self.last_words.clone(),
            Ok(status) => format!("its process ended ({status})"),
            Err(error) => format!("its process cannot be waited for: {error}"),
        }
    }

    /// Asks the process to end, and makes it end if it does not. Tells whether it has ended its app.
    pub async fn end(mut self) -> bool {
        drop(self.stdin);
        // Nobody listens any more, but it must be able to speak.
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
