//! Signs of life for the service manager, which ends and restarts a daemon that gives none.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{modal::LocalModalHealth, notify::ServiceManager, store::Store};

/// What has to work for the daemon to be alive.
pub struct Health {
    pub manager: ServiceManager,
    pub store: Store,
    pub modal: LocalModalHealth,
}

impl Health {
    /// Gives signs of life until cancelled, unless nobody waits for them. They are given by a task like all others, so
    /// that a runtime that is stuck gives none.
    pub async fn run(self, cancelled: CancellationToken) {
        let Some(limit) = self.manager.watchdog() else { return cancelled.cancelled().await };
        // One failure is not the end: others follow before the limit.
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

/// Longest pause between signs of life while the daemon stops: shorter than what any unit asks for.
const STOPPING_PERIOD: Duration = Duration::from_secs(1);

/// Signs of life while the daemon stops: what is checked otherwise is closed one by one then.
pub async fn while_stopping<T>(manager: &ServiceManager, stopping: impl Future<Output = T>) -> T {
    tokio::pin!(stopping);
    loop {
        match timeout(STOPPING_PERIOD, &mut stopping).await {
            Ok(done) => return done,
            Err(_) => manager.alive(),
        }
    }
}
