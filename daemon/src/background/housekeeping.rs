//! Forgets what has been kept long enough, so that a daemon that runs for a year needs no more room than one that runs for a
//! week.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    error::chain,
    events,
    http::KEYS_KEPT_FOR,
    registry::Registry,
    store::{Result, Store},
};

/// How long operations that have ended are kept.
const OPERATIONS: Duration = Duration::from_secs(7 * 24 * 3600);

pub struct Housekeeper {
    registry: Registry,
    period: Duration,
}

impl Housekeeper {
    pub fn new(registry: Registry, period: Duration) -> Self {
        Self { registry, period }
    }

    /// Cleans up now and then, until cancelled.
    pub async fn run(self, cancelled: CancellationToken) {
        loop {
            if let Err(error) = self.clean(&self.registry.store).await {
                tracing::error!(error = chain(&error), "the registry cannot be cleaned up");
            }
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = tokio::time::sleep(self.period) => {}
            }
        }
    }

    async fn clean(&self, store: &Store) -> Result<()> {
        let now = (self.registry.clock)();
        let operations = store.forget_operations(now - OPERATIONS).await?;
        let events = store.forget_events(now - events::KEPT_FOR, events::KEPT).await?;
        let keys = store.forget_idempotent(now - KEYS_KEPT_FOR).await?;
        tracing::debug!(operations, events, keys, "forgot what is old");
        Ok(())
    }
}
