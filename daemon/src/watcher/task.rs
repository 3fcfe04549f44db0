//! The life cycle of a watch: waits for a possible change, and runs rounds until no work is left.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use airflow_serverless_api::{
    event::EventKind,
    watch::{WatchMode, WatchState},
};
use futures::FutureExt;
use serde_json::json;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    debounce::{QUIET, debounce},
    round::{Memory, Outcome, Round},
    scan::{Identity, identity},
    status::Status,
};
use crate::{
    backoff::Backoff,
    error::{Error, Result},
    report::chain,
    settings,
};

/// Period of a full comparison of folder and Volume without an event, in case events were lost.
const PERIOD: Duration = Duration::from_secs(900);
/// Period of the check that the folder is still the watched one: mounts cause no events.
const IDENTITY_PERIOD: Duration = Duration::from_secs(60);
/// Period of the check whether a missing folder is back.
const ABSENCE_PERIOD: Duration = Duration::from_secs(2);
/// Period of the scans while a folder is being filled.
const FILLING_PERIOD: Duration = Duration::from_secs(1);
/// Retry period while the environment is not ready, as its notifications may get lost.
const WAITING_PERIOD: Duration = Duration::from_secs(30);
const RETRIES: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(300) };
/// Scans of a polled folder take at most one part in this many of the time.
const POLLING_PAUSE_FACTOR: u32 = 50;

pub struct Task {
    pub round: Round,
    pub changes: watch::Receiver<Instant>,
    /// Bumped when an environment has changed.
    pub environments: watch::Receiver<u64>,
    pub settings: settings::Watch,
    pub failures: u32,
    /// The last state that was reported, without intermediate ones.
    pub reported: WatchState,
}

/// What comes after a round.
struct Next {
    pause: Duration,
    /// Whether the next round compares with the Volume even if an event starts it.
    compares: bool,
    waits_for_environment: bool,
}

impl Task {
    /// Runs until canceled, or until the watch is removed. Abandons the current round: the next one repeats it.
    pub async fn run(mut self, cancelled: CancellationToken) {
        tokio::select! {
            () = cancelled.cancelled() => {}
            () = self.live() => {}
        }
    }

    async fn live(&mut self) {
        let mut compares = true;
        let mut compared_at = Instant::now();
        loop {
            self.start_watching();
            self.changes.borrow_and_update();
            self.environments.borrow_and_update();
            let started = Instant::now();
            let outcome = self.round(compares).await;
            let is_unfinished = matches!(outcome, Ok(Outcome::Again));
            if compares && matches!(outcome, Ok(Outcome::Done)) {
                compared_at = started;
            }
            let Some(next) = self.conclude(outcome) else { return };
            self.emit_event().await;
            let period_ends = compared_at + PERIOD;
            compares = self.wait(&next, period_ends).await || next.compares || (compares && is_unfinished);
        }
    }

    /// Runs a round. A panic counts as a failure, and the next round starts from scratch.
    async fn round(&mut self, compares: bool) -> Result<Outcome> {
        match AssertUnwindSafe(self.round.run(compares)).catch_unwind().await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.round.memory = Memory::default();
                self.round.shared.set_locals(Arc::default());
                Err(Error::Watch("the daemon failed at it; its log has the place".to_owned()))
            }
        }
    }

    /// Starts the system's file events, unless the settings ask for polling.
    fn start_watching(&self) {
        let mut directory = self.round.directory.lock();
        if self.settings.polling {
            directory.stop("airflowd.yaml asks for it, so the folder is polled every few seconds");
        } else {
            directory.start();
        }
    }

    /// Publishes how a round ended; `None` if it was the last one.
    fn conclude(&mut self, outcome: Result<Outcome>) -> Option<Next> {
        let name = self.round.row.directory.clone();
        if outcome.is_ok() {
            self.failures = 0;
        }
        let polling = self.settings.polling_interval().max(self.round.memory.scan_took * POLLING_PAUSE_FACTOR);
        let warning = self.round.directory.lock().warning().map(str::to_owned);
        let idle = if warning.is_some() { polling } else { PERIOD };
        let (state, message, next) = match outcome {
            Ok(Outcome::Gone) => return None,
            Ok(Outcome::Done) => (None, None, Next { pause: idle, compares: false, waits_for_environment: false }),
            Ok(Outcome::Again) => {
                (Some(WatchState::Pending), None, Next { pause: QUIET, compares: false, waits_for_environment: false })
            }
            Ok(Outcome::Filling) => {
                let next = Next { pause: FILLING_PERIOD, compares: true, waits_for_environment: false };
                (Some(WatchState::Pending), None, next)
            }
            Ok(Outcome::Missing(message)) => {
                let next = Next { pause: ABSENCE_PERIOD, compares: true, waits_for_environment: false };
                (Some(WatchState::Missing), Some(message), next)
            }
            Ok(Outcome::Waiting(message)) => {
                let next = Next { pause: WAITING_PERIOD, compares: true, waits_for_environment: true };
                (Some(WatchState::Pending), Some(message), next)
            }
            Err(error) => {
                let message = chain(&error);
                tracing::warn!(watch.directory = name, error = message, "a watched folder could not be uploaded");
                self.round.invalidate_cache();
                let next = Next { pause: self.back_off(), compares: true, waits_for_environment: false };
                (Some(WatchState::Failed), Some(message), next)
            }
        };
        let is_failure = state == Some(WatchState::Failed);
        let retry_at = is_failure.then(|| (self.round.clock)() + next.pause);
        self.round.shared.update(|status| {
            status.state = state.unwrap_or(match (status.invalid.is_empty(), status.pending.is_empty()) {
                (false, _) => WatchState::Invalid,
                (true, false) => WatchState::Pending,
                (true, true) => WatchState::InSync,
            });
            (status.message, status.retry_at) = (message, retry_at);
            status.mode = if warning.is_some() { WatchMode::Polling } else { WatchMode::Inotify };
            status.warning = warning;
        });
        Some(next)
    }

    /// Emits an event if the state has changed, except to pending.
    async fn emit_event(&mut self) {
        let Status { state, message, .. } = self.round.shared.status();
        if state == WatchState::Pending || state == self.reported {
            return;
        }
        self.reported = state;
        let row = &self.round.row;
        let data = json!({"watch_id": row.id, "directory": row.directory, "state": state, "message": message});
        self.round.airflow.record(EventKind::WatchState, &row.environment, data).await;
    }

    fn back_off(&mut self) -> Duration {
        let delay = RETRIES.delay(self.failures);
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// Waits for a reason to run another round. Returns whether the round also compares with the Volume.
    async fn wait(&mut self, next: &Next, period_ends: Instant) -> bool {
        let until = Instant::now() + next.pause;
        let watched = self.identity().await;
        loop {
            let look = Instant::now() + IDENTITY_PERIOD;
            let wake = until.min(period_ends).min(look);
            tokio::select! {
                changed = self.changes.changed() => {
                    if changed.is_ok() {
                        debounce(&mut self.changes, &self.round.root).await;
                    }
                    return false;
                }
                Ok(()) = self.environments.changed(), if next.waits_for_environment => return true,
                () = tokio::time::sleep_until(wake) => {
                    let now = Instant::now();
                    if now >= period_ends {
                        return true;
                    }
                    if self.identity().await != watched {
                        // A folder that has just appeared may still be being filled.
                        debounce(&mut self.changes, &self.round.root).await;
                        return false;
                    }
                    if now >= until {
                        return false;
                    }
                }
            }
        }
    }

    async fn identity(&self) -> Option<Identity> {
        let metadata = tokio::fs::metadata(&self.round.root).await.ok()?;
        Some(identity(&metadata))
    }
}

/// The handle on a running watch.
pub struct Running {
    pub shared: Arc<super::status::Shared>,
    pub cancel: CancellationToken,
    pub task: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Stops the watch and waits until its task has ended.
    pub async fn stop(self) {
        self.cancel.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a watch failed");
        }
    }
}
