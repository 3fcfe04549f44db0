//! The output of an App's containers.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use modal_proto::{
    AppFetchLogsRequest, AppGetByDeploymentNameRequest, AppGetLayoutRequest, AppGetLogsRequest, FileDescriptor,
    TaskLogs, TaskLogsBatch,
};
use tonic::Streaming;

use crate::{
    error::{Error, Result, found},
    wire::{Client, retry_delay, rpc},
};

/// How long one stream may last; then the next one takes over.
const ONE_STREAM_SECONDS: f32 = 55.0;
const HOUR: Duration = Duration::from_secs(3600);
/// How far back to look for the last pieces: most Apps have printed them lately, and looking far takes long.
const LOOKS_BACK: [Duration; 3] = [HOUR, HOUR.saturating_mul(24), HOUR.saturating_mul(24 * 7)];

/// Where a piece of output comes from: a stream of a container, or Modal itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Stdout,
    Stderr,
    System,
}

/// A piece of output, as it was written: mostly a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Nanoseconds since 1970.
    pub at: u64,
    pub source: Source,
    /// Name of the Function, if it is one of those that are deployed now.
    pub function: Option<String>,
    /// `ta-…`
    pub container_id: String,
    pub text: String,
}

/// The output of a deployed App.
pub struct Output {
    client: Client,
    app_id: String,
    functions: HashMap<String, String>,
    stream: Option<Streaming<TaskLogsBatch>>,
    /// The last batch that was seen.
    entry_id: String,
    failures: u32,
}

impl Client {
    /// The output of the deployed App of this name; `None` if there is no such App.
    ///
    /// # Errors
    /// [`Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn output(&self, app: &str) -> Result<Option<Output>> {
        let request = AppGetByDeploymentNameRequest { name: app.to_owned(), environment_name: self.environment_name() };
        let app = found(rpc!(self, app_get_by_deployment_name, request))?;
        let Some(app_id) = app.map(|app| app.app_id).filter(|id| !id.is_empty()) else { return Ok(None) };
        let layout = rpc!(self, app_get_layout, AppGetLayoutRequest { app_id: app_id.clone() })?.app_layout;
        let ids = layout.unwrap_or_default().function_ids;
        let functions = ids.into_iter().map(|(name, id)| (id, name)).collect();
        let (client, entry_id) = (self.clone(), String::new());
        Ok(Some(Output { client, app_id, functions, stream: None, entry_id, failures: 0 }))
    }
}

impl Output {
    /// The last pieces, oldest first; at most `count`, and of the last seven days.
    ///
    /// # Errors
    /// [`Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn last(&self, count: u32) -> Result<Vec<Piece>> {
        let until = SystemTime::now();
        let mut pieces = Vec::new();
        for back in LOOKS_BACK {
            let request = AppFetchLogsRequest {
                app_id: self.app_id.clone(),
                since: until.checked_sub(back).map(Into::into),
                until: Some(until.into()),
                limit: count,
                ..Default::default()
            };
            let batches = rpc!(self.client, app_fetch_logs, request)?.batches;
            pieces = batches.into_iter().flat_map(|batch| self.pieces(batch)).collect();
            if pieces.len() >= count as usize {
                break;
            }
        }
        pieces.sort_by_key(|piece| piece.at);
        Ok(pieces)
    }

    /// Waits for the next pieces, from the oldest that the server streams; `None` once the App has ended.
    ///
    /// # Errors
    /// [`Error::Rpc`] if the server refuses the request, or cannot be reached after several attempts.
    pub async fn next(&mut self) -> Result<Option<Vec<Piece>>> {
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    let request = AppGetLogsRequest {
                        app_id: self.app_id.clone(),
                        timeout: ONE_STREAM_SECONDS,
                        last_entry_id: self.entry_id.clone(),
                        ..Default::default()
                    };
                    self.stream.insert(rpc!(self.client, app_get_logs, request)?)
                }
            };
            let batch = match stream.message().await {
                Ok(Some(batch)) => batch,
                Ok(None) => {
                    self.stream = None;
                    continue;
                }
                Err(status) => {
                    self.stream = None;
                    let delay = retry_delay(&status, self.failures);
                    self.failures += 1;
                    tokio::time::sleep(delay.ok_or_else(|| Error::rpc("app_get_logs", status))?).await;
                    continue;
                }
            };
            self.failures = 0;
            if !batch.entry_id.is_empty() {
                self.entry_id.clone_from(&batch.entry_id);
            }
            let is_over = batch.app_done;
            let pieces = self.pieces(batch);
            if !pieces.is_empty() || is_over {
                return Ok((!is_over || !pieces.is_empty()).then_some(pieces));
            }
        }
    }

    fn pieces(&self, batch: TaskLogsBatch) -> Vec<Piece> {
        let TaskLogsBatch { task_id, items, function_id, .. } = batch;
        let function = self.functions.get(&function_id);
        let piece = |item: TaskLogs| Piece {
            at: if item.timestamp_ns > 0 { item.timestamp_ns } else { (item.timestamp * 1e9) as u64 },
            source: match item.file_descriptor() {
                FileDescriptor::Stdout => Source::Stdout,
                FileDescriptor::Stderr => Source::Stderr,
                FileDescriptor::Info | FileDescriptor::Unspecified => Source::System,
            },
            function: function.cloned(),
            container_id: task_id.clone(),
            text: item.data,
        };
        items.into_iter().filter(|item| !item.data.is_empty()).map(piece).collect()
    }
}
