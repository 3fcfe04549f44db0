//! The tasks of the daemon. If one ends unexpectedly, the daemon exits: half a daemon would look like a whole one.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[derive(Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    /// Drops tasks that have not ended in time.
    abandon: CancellationToken,
    failed: Arc<OnceLock<&'static str>>,
}

/// Marks a task as failed unless it ends as it should.
struct Guard {
    tasks: Tasks,
    name: &'static str,
    ended: bool,
}

impl Tasks {
    /// Creates a set of tasks that end once `stop` is canceled, and cancel it if one of them fails.
    pub fn new(stop: CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), stop, abandon: CancellationToken::new(), failed: Arc::default() }
    }

    /// Runs a task that must not end before the daemon stops.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (stop, abandon) = (self.stop.clone(), self.abandon.clone());
        let guard = Guard { tasks: self.clone(), name, ended: false };
        self.tracker.spawn(async move {
            let mut guard = guard;
            tokio::select! {
                () = task => {}
                () = abandon.cancelled() => tracing::warn!(task = name, "abandoned what was under way"),
            }
            guard.ended = stop.is_cancelled();
        });
    }

    /// Waits until all tasks have ended; those that take longer than `limit` are abandoned.
    pub async fn drain(&self, limit: Duration) {
        self.tracker.close();
        if tokio::time::timeout(limit, self.tracker.wait()).await.is_err() {
            self.abandon.cancel();
            self.tracker.wait().await;
        }
    }

    /// Returns the task that failed first.
    pub fn failed(&self) -> Option<&'static str> {
        self.failed.get().copied()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        tracing::error!(task = self.name, "a task of the daemon failed: the daemon ends");
        // Keeps only the first name.
        let _ = self.tasks.failed.set(self.name);
        self.tasks.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ended(task: impl Future<Output = ()> + Send + 'static) -> Option<&'static str> {
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone());
        tasks.spawn("other", stop.clone().cancelled_owned());
        tasks.spawn("one", task);
        stop.cancelled().await;
        tasks.drain(Duration::from_secs(60)).await;
        tasks.failed()
    }

    #[tokio::test]
    async fn panicked_or_ended_task_is_reported_as_failed() {
        assert_eq!(ended(async { panic!("as it happens") }).await, Some("one"));
        assert_eq!(ended(async {}).await, Some("one"));
    }

    #[tokio::test]
    async fn drain_abandons_tasks_that_do_not_stop() {
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone());
        tasks.spawn("quick", stop.clone().cancelled_owned());
        tasks.spawn("endless", std::future::pending());
        stop.cancel();
        tasks.drain(Duration::from_millis(1)).await;
        assert_eq!(tasks.failed(), None);
    }
}
