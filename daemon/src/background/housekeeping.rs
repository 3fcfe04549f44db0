//! Removes expired records, so that the disk usage of a daemon does not grow with its age.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    airflow::Airflow, base::Base, error::Result, events, registry::Registry, report::chain, store::KEYS_KEPT_FOR,
};

/// How long operations are kept after they ended.
const OPERATIONS: Duration = Duration::from_secs(7 * 24 * 3600);

pub struct Housekeeper {
    base: Base,
    registry: Registry,
    airflow: Arc<Airflow>,
    period: Duration,
}

impl Housekeeper {
    pub fn new(base: Base, registry: Registry, airflow: Arc<Airflow>, period: Duration) -> Self {
        Self { base, registry, airflow, period }
    }

    /// Cleans up periodically, and when an environment is removed, until canceled.
    pub async fn run(self, cancelled: CancellationToken) {
        loop {
            if let Err(error) = self.clean().await {
                tracing::error!(error = chain(&error), "what is old cannot be cleaned up");
            }
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = self.registry.removed() => {}
                () = tokio::time::sleep(self.period) => {}
            }
        }
    }

    async fn clean(&self) -> Result<()> {
        let (store, now) = (&self.base.store, self.base.now());
        let operations = store.forget_operations(now - OPERATIONS).await?;
        let events = store.forget_events(now - events::KEPT_FOR, events::KEPT).await?;
        let keys = store.forget_idempotent(now - KEYS_KEPT_FOR).await?;
        self.airflow.forget_removed_environments().await?;
        tracing::debug!(operations, events, keys, "forgot what is old");
        Ok(())
    }
}
