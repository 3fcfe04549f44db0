//! Reconciles environments with Modal: deploys the generation in the registry, with retries until it succeeds, and
//! takes down what is to be deleted.
//!
//! Each environment has at most one attempt at a time. An attempt for an outdated or canceled generation is abandoned,
//! and has ended before the next one begins.

use std::{collections::HashMap, sync::Arc, time::Duration};

use airflow_serverless_api::{
    environment::{Environment, EnvironmentName},
    event::EventKind,
    operation::{OperationState, StepState},
};
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    recorder::Recorder,
    steps::{self, Tools},
};
use crate::{
    backoff::Backoff,
    base::Base,
    error::Result,
    metrics::Metrics,
    model::{Deletion, DesiredState},
    progress::Progress,
    registry::Registry,
    report::chain,
    store::{Ended, Outcome},
};

/// Period without a wake-up, in case one was missed.
const PERIOD: Duration = Duration::from_secs(60);
const RETRIES: Backoff = Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(300) };
/// Limit on concurrent attempts: each may build an image and run Python.
const AT_A_TIME: usize = 4;

pub struct EnvironmentReconciler {
    base: Base,
    registry: Registry,
    metrics: Metrics,
    tools: Arc<Tools>,
    attempts: HashMap<EnvironmentName, Attempt>,
    running: JoinSet<(EnvironmentName, Result<()>)>,
    /// Consecutive attempts whose result could not be recorded, and when the next one may begin.
    unrecorded: HashMap<EnvironmentName, (u32, Instant)>,
}

struct Attempt {
    generation: i64,
    abandoned: CancellationToken,
}

impl EnvironmentReconciler {
    pub fn new(base: Base, registry: Registry, tools: Tools, metrics: Metrics) -> Self {
        let (attempts, unrecorded) = (HashMap::new(), HashMap::new());
        Self { base, registry, metrics, tools: Arc::new(tools), attempts, running: JoinSet::new(), unrecorded }
    }

    /// Runs until canceled, and then until the current steps have ended; the next start resumes the rest.
    pub async fn run(mut self, cancelled: CancellationToken) {
        let registry = self.registry.clone();
        self.find_outdated().await;
        while !cancelled.is_cancelled() {
            let pause = match self.base.store.desired_states().await {
                Ok(desired_states) => self.begin_what_is_due(&desired_states, &cancelled),
                Err(error) => {
                    tracing::error!(error = chain(&error), "the registry cannot be read");
                    PERIOD
                }
            };
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = registry.changed() => {}
                Some(ended) = self.running.join_next() => self.ended(ended),
                () = tokio::time::sleep(pause) => {}
            }
        }
        while self.running.join_next().await.is_some() {}
    }

    /// Finds environments deployed by an earlier version of the daemon.
    async fn find_outdated(&self) {
        let functions = self.tools.runtime.functions_hash();
        match self.base.store.outdate_environments(&functions, self.base.now()).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "environments are deployed again, with the functions of this version"),
            Err(error) => tracing::error!(error = chain(&error), "the registry cannot be written"),
        }
    }

    /// Begins attempts and abandons outdated ones; returns the time until the next check.
    fn begin_what_is_due(&mut self, desired_states: &[DesiredState], stop: &CancellationToken) -> Duration {
        let mut pause = PERIOD;
        for desired in desired_states {
            let Environment { name, generation, .. } = &desired.environment;
            if let Some(attempt) = self.attempts.get(name) {
                if attempt.generation != *generation || !desired.is_open {
                    attempt.abandoned.cancel();
                }
            } else if desired.is_open && self.running.len() < AT_A_TIME {
                match self.wait(desired) {
                    Some(wait) => pause = pause.min(wait),
                    None => self.begin(desired.clone(), stop.clone()),
                }
            }
        }
        pause
    }

    /// Returns the time until the next attempt, if it has to wait.
    fn wait(&self, desired: &DesiredState) -> Option<Duration> {
        let retry = desired.retry_at.and_then(|at| (at - self.base.now()).to_std().ok());
        // A longer wait means that the clock was set back.
        let retry = retry.filter(|wait| *wait <= RETRIES.longest);
        let (_, at) = self.unrecorded.get(&desired.environment.name).copied().unwrap_or((0, Instant::now()));
        retry.max(Some(at.saturating_duration_since(Instant::now()))).filter(|wait| !wait.is_zero())
    }

    fn begin(&mut self, desired: DesiredState, stop: CancellationToken) {
        let (name, generation) = (desired.environment.name.clone(), desired.environment.generation);
        let abandoned = CancellationToken::new();
        self.attempts.insert(name.clone(), Attempt { generation, abandoned: abandoned.clone() });
        let (base, registry) = (self.base.clone(), self.registry.clone());
        let (tools, metrics) = (self.tools.clone(), self.metrics.clone());
        self.running.spawn(async move {
            let done = tokio::select! {
                () = abandoned.cancelled() => Ok(()),
                done = reconcile((&base, &registry), &tools, &metrics, &desired, &stop) => done,
            };
            (name, done)
        });
    }

    fn ended(&mut self, ended: std::result::Result<(EnvironmentName, Result<()>), tokio::task::JoinError>) {
        // Propagates a panic.
        let (name, done) = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        self.attempts.remove(&name);
        match done {
            Ok(()) => drop(self.unrecorded.remove(&name)),
            Err(error) => {
                // The registry is not writable (a full disk, for example), so the time of the next attempt is kept in
                // memory.
                tracing::error!(environment.name = %name, error = chain(&error), "an attempt could not be recorded");
                let (failures, _) = self.unrecorded.get(&name).copied().unwrap_or((0, Instant::now()));
                self.unrecorded.insert(name, (failures.saturating_add(1), Instant::now() + RETRIES.delay(failures)));
            }
        }
    }
}

/// Makes one attempt to reach the desired state.
async fn reconcile(
    (base, registry): (&Base, &Registry),
    tools: &Tools,
    metrics: &Metrics,
    desired: &DesiredState,
    stop: &CancellationToken,
) -> Result<()> {
    let Environment { name, generation, .. } = &desired.environment;
    let latest = base.store.latest_operation(name).await?;
    let operation = latest.filter(|operation| operation.state == OperationState::Running);
    let mut recorder =
        Recorder::new(base.clone(), name.clone(), operation, steps::titles(desired.deletion), metrics.clone());
    match run_steps(tools, desired, &mut recorder, stop).await? {
        Steps::Stopped => return Ok(()),
        Steps::Failed { step, error } => {
            tracing::warn!(environment.name = %name, step, error, "the environment is not ready");
            let retry_at = base.now() + RETRIES.delay(desired.attempts);
            let outcome = Outcome::Failed { step, error: &error, retry_at };
            let ended = recorder.ending(Some(&error));
            let recorded = base.store.observe_environment(name, *generation, (outcome, ended), base.now()).await?;
            let Ended::Recorded { was_running } = recorded else { return Ok(()) };
            let data = json!({"generation": generation, "step": step, "error": error});
            base.events.record(EventKind::EnvironmentFailed, name, data).await;
            recorder.ended(was_running, Some(&error)).await;
            return Ok(());
        }
        Steps::Succeeded => {}
    }
    let ended = recorder.ending(None);
    let recorded = match desired.deletion {
        None => {
            let functions = tools.runtime.functions_hash();
            let outcome = Outcome::Reached { functions: &functions };
            base.store.observe_environment(name, *generation, (outcome, ended), base.now()).await?
        }
        Some(_) => base.store.forget_environment(name, *generation, ended, base.now()).await?,
    };
    let Ended::Recorded { was_running } = recorded else { return Ok(()) };
    match desired.deletion {
        None => {
            tracing::info!(environment.name = %name, environment.generation = generation, "the environment is ready");
            base.events.record(EventKind::EnvironmentReady, name, json!({"generation": generation})).await;
        }
        Some(deletion) => {
            tracing::info!(environment.name = %name, "the environment was deleted");
            registry.environment_removed();
            let data = json!({"purge": deletion == Deletion::Purge});
            base.events.record(EventKind::EnvironmentDeleted, name, data).await;
        }
    }
    recorder.ended(was_running, None).await;
    Ok(())
}

enum Steps {
    Succeeded,
    Failed {
        step: &'static str,
        error: String,
    },
    /// The daemon stops: the next start does the rest.
    Stopped,
}

async fn run_steps(
    tools: &Tools,
    desired: &DesiredState,
    recorder: &mut Recorder,
    stop: &CancellationToken,
) -> Result<Steps> {
    for (index, kind) in steps::of(desired.deletion).iter().enumerate() {
        if stop.is_cancelled() {
            return Ok(Steps::Stopped);
        }
        recorder.step(index, StepState::Running, None).await?;
        let (progress, details) = Progress::new();
        let work = tools.run(*kind, &desired.environment, &progress);
        match recorder.while_running(index, details, work).await? {
            Ok(detail) => recorder.step(index, StepState::Succeeded, Some(detail)).await?,
            Err(error) => {
                let error = chain(&error);
                recorder.step(index, StepState::Failed, Some(error.clone())).await?;
                return Ok(Steps::Failed { step: kind.title(), error });
            }
        }
    }
    Ok(Steps::Succeeded)
}
