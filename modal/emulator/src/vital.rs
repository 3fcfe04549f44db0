//! Whether an emulator lives, for the program around it; and its end when there is no time for one in order.

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{containers::kill_left_overs, options::Options, shared::Shared};

/// Runs a task without which there is no emulator: should it end before `stop`, `failed` is cancelled.
pub fn spawn(
    name: &'static str,
    stop: &CancellationToken,
    failed: &CancellationToken,
    task: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let (stop, guard) = (stop.clone(), failed.clone().drop_guard());
    tokio::spawn(async move {
        // It is dropped by a panic, too.
        let guard = guard;
        task.await;
        if stop.is_cancelled() {
            guard.disarm();
        } else {
            tracing::error!("the {name} ended unexpectedly");
        }
    })
}

/// A look whether an emulator works.
pub struct Heartbeat(Weak<Shared>);

impl Heartbeat {
    pub(crate) fn of(shared: &Arc<Shared>) -> Self {
        Self(Arc::downgrade(shared))
    }

    /// Whether its state can be had and changes become durable; or why not.
    pub async fn check(&self) -> Result<(), String> {
        let shared = self.0.upgrade().ok_or("Local Modal has stopped")?;
        shared.read(|_| ());
        shared.settled().await.map_err(|error| format!("Local Modal: {error}"))
    }
}

/// Ends the containers of an emulator, and what builds images, at once.
pub struct Killer([PathBuf; 2]);

impl Killer {
    pub(crate) fn of(options: &Options) -> Self {
        Self([options.containers_folder(), options.images_folder()])
    }

    /// Returns when they are gone; blocking.
    pub fn kill(&self) {
        self.0.iter().for_each(|folder| kill_left_overs(folder));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the end of a task is taken for a failure.
    async fn fails(stopped: bool, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let (stop, failed) = (CancellationToken::new(), CancellationToken::new());
        if stopped {
            stop.cancel();
        }
        // That it panicked is what is looked at.
        let _ = spawn("task", &stop, &failed, task).await;
        failed.is_cancelled()
    }

    #[tokio::test]
    async fn the_end_of_a_vital_task_is_noticed() {
        assert!(fails(false, async { panic!("as it happens") }).await);
        assert!(fails(false, async {}).await);
        assert!(!fails(true, async {}).await);
    }
}
