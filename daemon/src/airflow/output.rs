//! The output of an environment's containers: of the scheduler, and of tasks where Airflow does not log it.

use airflow_serverless_api::log::{ContainerLine, ContainerLogs, LineSource, ReadContainerLogs};
use chrono::DateTime;
use modal_client::{Output, Piece, Source};

use super::Deployed;
use crate::error::{Error, Result};

/// Output that is streamed.
pub struct FollowedOutput {
    output: Output,
    /// The last lines from before the stream began.
    tail: Vec<Piece>,
    /// Timestamp of the last piece that was returned.
    given: u64,
}

impl Deployed {
    /// Returns the last lines of output.
    pub async fn container_logs(&self, query: ReadContainerLogs) -> Result<ContainerLogs> {
        let followed = self.follow_container_logs(query).await?;
        Ok(ContainerLogs { lines: followed.tail.into_iter().map(line).collect() })
    }

    /// Returns the last lines, and follows new output.
    pub async fn follow_container_logs(&self, query: ReadContainerLogs) -> Result<FollowedOutput> {
        let output = self.client.output(&self.environment.names.app).await?;
        let output = output.ok_or_else(|| Error::EnvironmentNotReady(self.name().clone(), None))?;
        let now = u64::try_from(self.airflow.base.now().timestamp_nanos_opt().unwrap_or_default()).unwrap_or_default();
        let tail = if query.tail() == 0 { Vec::new() } else { output.last(query.tail()).await? };
        let given = tail.last().map_or(now, |piece| piece.at);
        Ok(FollowedOutput { output, tail, given })
    }
}

impl FollowedOutput {
    /// Waits for more output; `None` once the environment is gone.
    pub async fn next(&mut self) -> Result<Option<Vec<ContainerLine>>> {
        if !self.tail.is_empty() {
            return Ok(Some(std::mem::take(&mut self.tail).into_iter().map(line).collect()));
        }
        while let Some(mut pieces) = self.output.next().await? {
            // The stream begins with output that was already returned.
            pieces.retain(|piece| piece.at > self.given);
            if !pieces.is_empty() {
                return Ok(Some(pieces.into_iter().map(line).collect()));
            }
        }
        Ok(None)
    }
}

fn line(piece: Piece) -> ContainerLine {
    ContainerLine {
        timestamp: DateTime::from_timestamp_nanos(piece.at.cast_signed()),
        source: match piece.source {
            Source::Stdout => LineSource::Stdout,
            Source::Stderr => LineSource::Stderr,
            Source::System => LineSource::System,
        },
        function: piece.function,
        container_id: piece.container_id,
        message: piece.text.trim_end_matches('\n').to_owned(),
    }
}
