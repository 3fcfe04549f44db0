//! The loop that does what the state asks for.

use std::{sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    containers::{self, Containers},
    shared::Shared,
};

/// Plans are made at least this often, whatever happens: a safety net, nothing relies on it.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Carries out plans until `stop`.
pub async fn run(shared: Arc<Shared>, containers: Arc<Containers>, tracker: TaskTracker, stop: CancellationToken) {
    loop {
        let plan = shared.change_soon(|state, now| state.plan(now));
        for task_id in plan.start {
            let shared = shared.clone();
            let containers = containers.clone();
            // Before it runs, so that no signal for it is missed.
            let signals = containers.begin(&task_id);
            tracker.spawn(async move { containers::run(&shared, &containers, task_id, signals).await });
        }
        for (task_id, signal) in plan.signal {
            containers.signal(&task_id, signal);
        }
        for call_id in plan.forget {
            shared.streams.forget(&call_id);
        }
        shared.endpoints.close_gone(&shared);
        let latest = tokio::time::Instant::now() + LONGEST_WAIT;
        let wake_at = plan.wake_at.map_or(latest, |at| latest.min(at.into()));
        tokio::select! {
            () = shared.woken() => {}
            () = tokio::time::sleep_until(wake_at) => {}
            () = stop.cancelled() => return,
        }
    }
}
