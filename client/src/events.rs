//! Server-sent events, as the daemon sends them: the data of each is one line of JSON.

use airflow_serverless_api::event::{Event, FollowEvents};
use reqwest::{Method, Response};

use crate::{
    daemon::{self, Daemon},
    failure::Failure,
};

impl Daemon {
    /// Gives events to `take` as they happen, until it returns `false` or the daemon stops.
    pub async fn follow_events(
        &self,
        query: &FollowEvents,
        mut take: impl FnMut(&Event) -> bool,
    ) -> Result<(), Failure> {
        let request = self.request(Method::GET, &["events"]).query(query).timeout(daemon::NO_LIMIT);
        let mut response: Response = daemon::send(request).await?;
        let mut lines = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(daemon::unreachable)? {
            lines.extend_from_slice(&chunk);
            while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = lines.drain(..=end).collect();
                let Some(data) = line.strip_prefix(b"data: ") else { continue };
                let event = serde_json::from_slice(data);
                if !take(&event.map_err(|error| Failure::unexpected("reading an event", error))?) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
