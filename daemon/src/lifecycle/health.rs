//! Watchdog notifications for the service manager, which restarts a daemon that stops sending them.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{modal::LocalModalHealth, notify::ServiceManager, store::Store};

/// The components that must work.
pub struct Health {
    pub manager: ServiceManager,
    pub store: Store,
    pub modal: LocalModalHealth,
}

impl Health {
    /// Sends notifications until canceled, if the service manager expects them. Runs as an ordinary task, so that a
    /// stuck runtime sends none.
    pub async fn run(self, cancelled: CancellationToken) {
        let Some(limit) = self.manager.watchdog() else { return cancelled.cancelled().await };
        // One failure is tolerated: further checks follow before the limit.
        let period = limit / 4;
        loop {
            match timeout(period, self.check()).await {
                Ok(Ok(())) => self.manager.alive(),
                Ok(Err(reason)) => tracing::error!(reason, "the daemon is not well"),
                Err(_) => tracing::error!(reason = "no answer", "the daemon is not well"),
            }
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = tokio::time::sleep(period) => {}
            }
        }
    }

    async fn check(&self) -> Result<(), String> {
        self.store.ping().await.map_err(|error| crate::report::chain(&error))?;
        self.modal.check().await
    }
}

/// Longest pause between notifications while the daemon stops: shorter than the limit of any unit.
const STOPPING_PERIOD: Duration = Duration::from_secs(1);

/// Sends notifications while the daemon stops, without checks, as the components are being closed.
pub async fn while_stopping<T>(manager: &ServiceManager, stopping: impl Future<Output = T>) -> T {
    tokio::pin!(stopping);
    loop {
        match timeout(STOPPING_PERIOD, &mut stopping).await {
            Ok(done) => return done,
            Err(_) => manager.alive(),
        }
    }
}
