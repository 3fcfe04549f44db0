//! Reads the daemon's server-sent events: each has a name and one line of JSON.

use airflow_serverless_api::{
    Problem,
    environment::EnvironmentName,
    event::{Event, FollowEvents},
    log::{ContainerLine, ReadContainerLogs},
    routes,
    run::{LogEnd, LogLine, ReadLogs},
    ui::{UiProgress, UiReady},
};
use reqwest::{Method, RequestBuilder};

use crate::{
    daemon::{self, Daemon},
    error::CliError,
};

/// An event of a followed log.
pub enum LogEvent {
    Line(LogLine),
    End(LogEnd),
}

/// An event of a UI.
pub enum UiEvent {
    Progress(UiProgress),
    Ready(UiReady),
}

impl Daemon {
    /// Runs the UI of an environment and passes its events to `show`, until it fails; dropping this stops the UI.
    pub async fn open_ui(&self, environment: &EnvironmentName, mut show: impl FnMut(UiEvent)) -> Result<(), CliError> {
        let request = self.request(Method::POST, routes::UI.path([environment.as_str()]));
        follow(request, |kind, data| {
            match kind {
                b"ready" => show(UiEvent::Ready(parse(data)?)),
                _ => show(UiEvent::Progress(parse(data)?)),
            }
            Ok(true)
        })
        .await?;
        let hint =
            Some("start it again; `airflow-serverless daemon status` shows whether the daemon is running".to_owned());
        Err(CliError::Unexpected { message: "the daemon stopped, and the UI with it".to_owned(), hint })
    }

    /// Passes events to `take` as they happen, until it returns `false` or the daemon stops.
    pub async fn follow_events(
        &self,
        query: &FollowEvents,
        mut take: impl FnMut(&Event) -> bool,
    ) -> Result<(), CliError> {
        follow(self.request(Method::GET, routes::EVENTS.path([])).query(query), |_, data| Ok(take(&parse(data)?))).await
    }

    /// Passes the output of an environment's containers to `take`, until it returns `false`, the environment is gone or
    /// the daemon stops.
    pub async fn follow_container_logs(
        &self,
        environment: &EnvironmentName,
        query: ReadContainerLogs,
        mut take: impl FnMut(&ContainerLine) -> bool,
    ) -> Result<(), CliError> {
        let request = self.request(Method::GET, routes::LOG_STREAM.path([environment.as_str()]));
        follow(request.query(&query), |_, data| Ok(take(&parse(data)?))).await
    }

    /// Passes the log of a task to `take` as it grows, until the try has ended or `take` returns `false`.
    pub async fn follow_task_log(
        &self,
        environment: &EnvironmentName,
        (dag_id, run_id, task_id): (&str, &str, &str),
        query: &ReadLogs,
        mut take: impl FnMut(LogEvent) -> bool,
    ) -> Result<(), CliError> {
        let environment = environment.as_str();
        let path = routes::TASK_LOG_STREAM.path([environment, dag_id, run_id, task_id]);
        let request = self.request(Method::GET, path).query(query);
        let mut is_whole = false;
        follow(request, |kind, data| match kind {
            b"end" => {
                is_whole = true;
                Ok(take(LogEvent::End(parse(data)?)))
            }
            _ => {
                let goes_on = take(LogEvent::Line(parse(data)?));
                is_whole = !goes_on;
                Ok(goes_on)
            }
        })
        .await?;
        let hint = Some(
            "run the command again; `airflow-serverless daemon status` shows whether the daemon is running".to_owned(),
        );
        let broken = CliError::Unexpected { message: "the log stream was interrupted".to_owned(), hint };
        if is_whole { Ok(()) } else { Err(broken) }
    }
}

/// Passes the name and data of each event to `take`, until it returns `false` or the stream ends. Fails on a `failed`
/// event.
async fn follow(
    request: RequestBuilder,
    mut take: impl FnMut(&[u8], &[u8]) -> Result<bool, CliError>,
) -> Result<(), CliError> {
    let mut response = daemon::send(request.timeout(daemon::NO_LIMIT)).await?;
    let (mut read, mut kind) = (Vec::new(), Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(daemon::unreachable)? {
        read.extend_from_slice(&chunk);
        let mut rest = Vec::new();
        for line in read.split_inclusive(|byte| *byte == b'\n') {
            let Some(line) = line.strip_suffix(b"\n") else {
                rest = line.to_vec();
                break;
            };
            if let Some(name) = line.strip_prefix(b"event: ") {
                kind = name.to_vec();
            } else if let Some(data) = line.strip_prefix(b"data: ") {
                if kind == b"failed" {
                    return Err(parse::<Problem>(data)?.into());
                }
                if !take(&kind, data)? {
                    return Ok(());
                }
            }
        }
        read = rest;
    }
    Ok(())
}

fn parse<T: serde::de::DeserializeOwned>(data: &[u8]) -> Result<T, CliError> {
    serde_json::from_slice(data).map_err(|error| CliError::unexpected("reading an event", error))
}
