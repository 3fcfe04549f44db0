//! The loop that carries out the plans of the state.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    containers::{self, Containers},
    shared::Shared,
    state::{StopSignal, TaskExit},
};

/// Plans are made at least this often. This is a safety net; nothing relies on it.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Carries out plans until `stop`.
pub async fn run(shared: Arc<Shared>, containers: Arc<Containers>, tracker: TaskTracker, stop: CancellationToken) {
    loop {
        let plan = shared.change_soon(|state, now| state.plan(now));
        for task_id in plan.start {
            let shared = shared.clone();
            let containers = containers.clone();
            // Before the container runs, so that no signal is missed.
            let signals = containers.begin(&task_id);
            tracker.spawn(supervise(shared, containers, task_id, signals));
        }
        for (task_id, signal) in plan.signal {
            containers.signal(&task_id, signal);
        }
        for call_id in plan.forget {
            shared.streams.forget(&call_id);
        }
        shared.read(|state| {
            shared.endpoints.close_removed(|(function_id, method)| state.has_endpoint(function_id, method));
        });
        containers.close_unused(&shared);
        let latest = tokio::time::Instant::now() + LONGEST_WAIT;
        let wake_at = plan.wake_at.map_or(latest, |at| latest.min(at.into()));
        tokio::select! {
            () = shared.woken() => {}
            () = tokio::time::sleep_until(wake_at) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Runs a container. If that panics, its inputs must not wait forever.
async fn supervise(
    shared: Arc<Shared>,
    containers: Arc<Containers>,
    task_id: String,
    signals: mpsc::UnboundedReceiver<StopSignal>,
) {
    let (in_run, id) = (shared.clone(), task_id.clone());
    let run = tokio::spawn(async move { containers::run(&in_run, &containers, id, signals).await });
    if let Err(error) = run.await {
        tracing::error!(%error, task.id = task_id, "the supervision of a container failed");
        let exit = TaskExit { how: "was lost by Local Modal".to_owned(), last_output: String::new() };
        shared.change_soon(|state, now| state.task_exited(&task_id, &exit, now));
    }
}
