//! Events: recorded for followers, with a notification for waiters.

use std::time::Duration;

use airflow_serverless_api::{
    environment::EnvironmentName,
    event::{Event, EventKind},
};
use serde_json::Value;
use tokio::sync::watch;

use crate::{error::Result, model::Clock, report::chain, store::Store};

/// How long events are kept, and how many of them.
pub const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
pub const KEPT: u32 = 10_000;
/// Limit on the events of one query.
const PAGE: u32 = 100;

#[derive(Clone)]
pub struct Events {
    store: Store,
    clock: Clock,
    /// Incremented whenever an event was recorded or an operation has changed.
    changed: watch::Sender<u64>,
}

impl Events {
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock, changed: watch::Sender::new(0) }
    }

    /// Records an event. What it reports has already happened, so a failure is only logged.
    pub async fn record(&self, kind: EventKind, environment: &EnvironmentName, data: Value) {
        if let Err(error) = self.store.insert_event(kind, environment, &data, (self.clock)()).await {
            tracing::error!(environment.name = %environment, error = chain(&error), "an event was not recorded");
        }
        self.notify();
    }

    /// Wakes the waiters.
    pub fn notify(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Returns a receiver that is notified of possible changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Returns the first events after this one, of all environments or one.
    pub async fn after(&self, id: i64, environment: Option<&EnvironmentName>) -> Result<Vec<Event>> {
        Ok(self.store.events(id, environment, PAGE).await?)
    }

    /// Returns the id of the newest event; 0 if there was none.
    pub async fn newest(&self) -> Result<i64> {
        Ok(self.store.newest_event().await?)
    }
}
