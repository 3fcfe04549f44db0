//! Health of an emulator, for the program that embeds it, and its immediate end.

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{options::Options, process::kill_orphans, shared::Shared};

/// Runs a task that the emulator cannot do without: if it ends before `stop`, `failed` is canceled.
pub fn spawn(
    name: &'static str,
    stop: &CancellationToken,
    failed: &CancellationToken,
    task: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let (stop, guard) = (stop.clone(), failed.clone().drop_guard());
    tokio::spawn(async move {
        // A panic drops it, too.
        let guard = guard;
        task.await;
        if stop.is_cancelled() {
            guard.disarm();
        } else {
            tracing::error!("the {name} ended unexpectedly");
        }
    })
}

/// A health check of an emulator.
pub struct LocalModalHealth(Weak<Shared>);

impl LocalModalHealth {
    pub(crate) fn of(shared: &Arc<Shared>) -> Self {
        Self(Arc::downgrade(shared))
    }

    /// Checks that the state can be locked and that changes become durable.
    ///
    /// # Errors
    /// The reason, as text.
    pub async fn check(&self) -> Result<(), String> {
        let shared = self.0.upgrade().ok_or("Local Modal has stopped")?;
        shared.read(|_| ());
        shared.synced().await.map_err(|error| format!("Local Modal: {error}"))
    }
}

/// Kills the containers and the image builds of an emulator.
pub struct KillSwitch([PathBuf; 2]);

impl KillSwitch {
    pub(crate) fn of(options: &Options) -> Self {
        Self([options.containers_folder(), options.images_folder()])
    }

    /// Kills them and returns when they have ended; blocking.
    pub fn kill(&self) {
        self.0.iter().for_each(|folder| kill_orphans(folder));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the end of a task counts as a failure.
    async fn fails(stopped: bool, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let (stop, failed) = (CancellationToken::new(), CancellationToken::new());
        if stopped {
            stop.cancel();
        }
        // The task may panic.
        let _ = spawn("task", &stop, &failed, task).await;
        failed.is_cancelled()
    }

    #[tokio::test]
    async fn unexpected_end_of_a_task_is_reported_as_failure() {
        assert!(fails(false, async { panic!("as it happens") }).await);
        assert!(fails(false, async {}).await);
        assert!(!fails(true, async {}).await);
    }
}
