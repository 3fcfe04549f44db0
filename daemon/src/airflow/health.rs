//! The health of an environment's scheduler, from its entries in the Dict: `health`, and the due time of the next tick.

use std::{collections::HashMap, sync::Arc, time::Duration};

use airflow_serverless_api::{
    environment::{Condition, ConditionKind, Environment, EnvironmentName, EnvironmentState, Reason},
    event::EventKind,
};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{Airflow, Deployed};
use crate::error::{Error, Result};

/// A tick is overdue if it is `OVERDUE_SECONDS` late in every check for `OVERDUE_FOR`. (After a suspend of the machine
/// or a stop of the daemon, ticks are late for a moment.)
const OVERDUE_SECONDS: f64 = 180.0;
const OVERDUE_FOR: Duration = Duration::from_secs(120);
/// Longest time that a request waits for a fresh check.
const FRESH_CHECK_LIMIT: Duration = Duration::from_secs(2);

/// Failures that the scheduler has recorded; see `state.py`.
#[derive(Debug, Deserialize)]
struct Health {
    failure: Option<Failure>,
    quarantined: Vec<Quarantined>,
    quarantined_count: u64,
}

#[derive(Debug, Deserialize)]
struct Failure {
    reason: String,
    message: String,
}

#[derive(Debug, Deserialize)]
struct Quarantined {
    kind: String,
    name: String,
    error: String,
}

#[derive(Debug, Deserialize)]
struct Due {
    next_due: Option<f64>,
    full_tick_at: f64,
}

/// When the ticks of each environment became overdue.
#[derive(Default)]
pub(super) struct Overdue(Mutex<HashMap<EnvironmentName, Instant>>);

impl Overdue {
    /// Records an observation; returns how long the tick has been overdue, `None` if it is not.
    fn observe(&self, environment: &EnvironmentName, is_overdue: bool) -> Option<Duration> {
        let mut since = self.0.lock();
        if !is_overdue {
            since.remove(environment);
            return None;
        }
        Some(since.entry(environment.clone()).or_insert_with(Instant::now).elapsed())
    }
}

type Judgement = (bool, Reason, String);

impl Airflow {
    /// Returns the environment, with a fresh status of its scheduler if the check is quick.
    pub async fn environment(self: &Arc<Self>, name: &EnvironmentName) -> Result<Environment> {
        let environment = self.registry.environment(name).await?;
        match timeout(FRESH_CHECK_LIMIT, self.observe_scheduler(&environment)).await {
            Ok(Ok(_)) => self.registry.environment(name).await,
            _ => Ok(environment),
        }
    }

    /// Checks the scheduler of a deployed environment and records changes. Returns why the scheduler does not work, if
    /// so.
    pub async fn observe_scheduler(self: &Arc<Self>, environment: &Environment) -> Result<Option<String>> {
        if environment.observed_generation == 0 || environment.state == EnvironmentState::Deleting {
            return Ok(None);
        }
        self.handle(environment.clone()).await?.observe_scheduler().await
    }
}

impl Deployed {
    async fn observe_scheduler(&self) -> Result<Option<String>> {
        let (environment, name) = (&self.environment, self.name());
        let Some((health, due)) = self.scheduler_notes().await? else { return Ok(None) };
        let Airflow { overdue, base, .. } = &*self.airflow;
        let now = base.now();
        let late =
            due.map(|due| now.timestamp() as f64 - due.next_due.unwrap_or(due.full_tick_at).min(due.full_tick_at));
        let overdue = overdue.observe(name, late.is_some_and(|late| late > OVERDUE_SECONDS));
        let (status, reason, message) = judge(health, late.filter(|_| overdue.is_some_and(|it| it > OVERDUE_FOR)));
        let known = environment.condition(ConditionKind::SchedulerHealthy);
        let is_known = known.is_some_and(|it| (it.status, it.reason, &it.message) == (status, reason, &message));
        let failure = (!status && reason != Reason::Quarantined).then(|| message.clone());
        if !is_known {
            let was = known.map(|it| (it.status, it.last_transition_at));
            let since = was.filter(|(was, _)| *was == status).map_or(now, |(_, since)| since);
            let data = json!({"status": status, "reason": reason, "message": message});
            let condition =
                Condition { kind: ConditionKind::SchedulerHealthy, status, reason, message, last_transition_at: since };
            base.store.observe_scheduler(name, &condition).await?;
            let was_unknown = known.is_none_or(|it| it.reason == Reason::Unobserved);
            if !(was_unknown && status) {
                self.record(EventKind::SchedulerState, data).await;
            }
        }
        Ok(failure)
    }

    /// Reads the scheduler's entries in the Dict; `None` if there is no Dict. Must not recreate the Dict of an
    /// environment that is being deleted.
    async fn scheduler_notes(&self) -> Result<Option<(Option<Health>, Option<Due>)>> {
        let Some(dict) = self.find_dict().await? else { return Ok(None) };
        match tokio::try_join!(dict.get("health"), dict.get("due")) {
            Err(error) if error.is_not_found() => {
                self.forget_objects().await;
                Ok(None)
            }
            notes => Ok(Some(notes?)),
        }
    }

    /// Explains why the scheduler does not respond, from its current status.
    pub(super) async fn scheduler_failure(&self, otherwise: Error) -> Error {
        let looked = async {
            let environment = self.airflow.registry.deployed_environment(self.name()).await?;
            self.airflow.observe_scheduler(&environment).await
        };
        match looked.await {
            Ok(Some(message)) => Error::SchedulerFailed(self.name().clone(), message),
            _ => otherwise,
        }
    }
}

/// `late`: by how many seconds a tick is overdue.
fn judge(health: Option<Health>, late: Option<f64>) -> Judgement {
    let Some(health) = health else {
        return late.map_or_else(|| (true, Reason::Scheduling, "ticks succeed".to_owned()), overdue);
    };
    if let Some(Failure { reason, message }) = health.failure {
        return (false, reason_of(&reason), message);
    }
    if let Some(late) = late {
        return overdue(late);
    }
    let Some(first) = health.quarantined.first() else {
        return (true, Reason::Scheduling, "ticks succeed".to_owned());
    };
    let more = health.quarantined_count.saturating_sub(1);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let Quarantined { kind, name, error } = first;
    (false, Reason::Quarantined, format!("it leaves out {kind} {name} ({error}){more}"))
}

fn overdue(late: f64) -> Judgement {
    let message = format!("a tick is overdue by {late:.0} s; `airflow-serverless logs` shows the output of ticks");
    (false, Reason::TickOverdue, message)
}

fn reason_of(word: &str) -> Reason {
    match word {
        "database_damaged" => Reason::DatabaseDamaged,
        "database_locked" => Reason::DatabaseLocked,
        "database_missing" => Reason::DatabaseMissing,
        "database_newer" => Reason::DatabaseNewer,
        "database_read_only" => Reason::DatabaseReadOnly,
        "database_unavailable" => Reason::DatabaseUnavailable,
        "disk_full" => Reason::DiskFull,
        _ => Reason::TickFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(json: serde_json::Value) -> Option<Health> {
        Some(serde_json::from_value(json).expect("an entry of the Dict"))
    }

    #[test]
    fn failure_takes_precedence_over_quarantine() {
        let quarantined = json!([{"kind": "file", "name": "a.py", "error": "ValueError: no"}]);
        let failure = json!({"reason": "disk_full", "message": "no space", "traceback": ""});
        let both = json!({"failure": failure, "quarantined": quarantined, "quarantined_count": 3});
        assert_eq!(judge(health(both), Some(9.0)), (false, Reason::DiskFull, "no space".to_owned()));
        let left_out = json!({"failure": null, "quarantined": quarantined, "quarantined_count": 3});
        let (status, reason, message) = judge(health(left_out.clone()), None);
        assert_eq!((status, reason), (false, Reason::Quarantined));
        assert!(message.contains("file a.py (ValueError: no), and 2 more"), "{message}");
        assert_eq!(judge(health(left_out), Some(200.0)).1, Reason::TickOverdue);
        assert!(judge(None, None).0);
    }

    #[tokio::test(start_paused = true)]
    async fn overdue_time_counts_from_the_first_overdue_observation() {
        let (overdue, name) = (Overdue::default(), "dev".parse().expect("a name"));
        assert_eq!(overdue.observe(&name, true), Some(Duration::ZERO));
        tokio::time::advance(Duration::from_secs(130)).await;
        assert!(overdue.observe(&name, true) > Some(OVERDUE_FOR));
        assert_eq!(overdue.observe(&name, false), None);
        assert_eq!(overdue.observe(&name, true), Some(Duration::ZERO));
    }
}
