//! Brings environments to Modal: whatever generation the registry wants is built, again and again until it stands.

use std::{collections::HashMap, time::Duration};

use airflow_serverless_api::{
    environment::{Environment, EnvironmentName},
    operation::{OperationState, StepState},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    recorder::Recorder,
    steps::{self, StepKind, Tools},
};
use crate::{
    error::{Result, chain},
    progress::Progress,
    registry::Registry,
};

/// A look without a wake-up, for whatever a wake-up may have missed.
const PERIOD: Duration = Duration::from_secs(60);
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_secs(300);

pub struct EnvironmentReconciler {
    registry: Registry,
    tools: Tools,
    /// Failed environments: the generation that failed, how often in a row, and when it is tried again.
    failures: HashMap<EnvironmentName, Failure>,
}

#[derive(Clone, Copy)]
struct Failure {
    generation: i64,
    count: u32,
    retry_at: Instant,
}

/// How the steps ended.
enum Attempt {
    Succeeded,
    /// With this reason.
    Failed(String),
    /// The daemon stops: the next one repeats them.
    Interrupted,
}

impl EnvironmentReconciler {
    pub fn new(registry: Registry, tools: Tools) -> Self {
        Self { registry, tools, failures: HashMap::new() }
    }

    /// Runs until cancelled, and then to the end of the step under way; the next start of the daemon repeats the others.
    pub async fn run(mut self, cancelled: CancellationToken) {
        let wake = self.registry.wake.clone();
        self.find_outdated().await;
        loop {
            self.reconcile_all(&cancelled).await;
            let pause =
                self.next_retry().map_or(PERIOD, |retry| retry.saturating_duration_since(Instant::now()).min(PERIOD));
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// After an upgrade of the daemon, what is deployed is of the version before.
    async fn find_outdated(&self) {
        let functions = self.tools.runtime.functions_hash();
        match self.registry.store.outdate_environments(&functions, (self.registry.clock)()).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "environments are deployed again, with the functions of this version"),
            Err(error) => tracing::error!(error = chain(&error), "the registry cannot be written"),
        }
    }

    fn next_retry(&self) -> Option<Instant> {
        self.failures.values().map(|failure| failure.retry_at).min()
    }

    async fn reconcile_all(&mut self, cancelled: &CancellationToken) {
        let environments = match self.registry.list_environments().await {
            Ok(environments) => environments,
            Err(error) => return tracing::error!(error = chain(&error), "the registry cannot be read"),
        };
        for environment in environments {
            if cancelled.is_cancelled() {
                return;
            }
            if environment.observed_generation < environment.generation && !self.is_waiting(&environment) {
                let name = environment.name.clone();
                if let Err(error) = self.reconcile(environment, cancelled).await {
                    tracing::error!(environment.name = %name, error = chain(&error), "the registry cannot be written");
                }
            }
        }
    }

    fn is_waiting(&self, environment: &Environment) -> bool {
        let failure = self.failures.get(&environment.name);
        failure.is_some_and(|f| f.generation == environment.generation && f.retry_at > Instant::now())
    }

    async fn reconcile(&mut self, environment: Environment, cancelled: &CancellationToken) -> Result<()> {
        let latest = self.registry.store.latest_operation(&environment.name).await?;
        let operation = latest.filter(|operation| operation.state == OperationState::Running);
        let mut recorder = Recorder::new(self.registry.clone(), operation, &steps::all());
        let failure = match self.run_steps(&environment, &mut recorder, cancelled).await? {
            Attempt::Succeeded => None,
            Attempt::Failed(reason) => Some(reason),
            Attempt::Interrupted => return Ok(()),
        };
        let Environment { name, generation, .. } = &environment;
        match &failure {
            None => {
                tracing::info!(environment.name = %name, environment.generation = generation, "the environment is ready");
                self.failures.remove(name);
            }
            Some(error) => {
                tracing::warn!(environment.name = %name, error, "the environment is not ready");
                self.back_off(&environment);
            }
        }
        let functions = self.tools.runtime.functions_hash();
        let outcome = failure.as_deref().map_or(Ok(functions.as_str()), Err);
        self.registry.store.observe_environment(name, *generation, outcome, (self.registry.clock)()).await?;
        recorder.finish(failure.as_deref()).await
    }

    async fn run_steps(
        &self,
        environment: &Environment,
        recorder: &mut Recorder,
        cancelled: &CancellationToken,
    ) -> Result<Attempt> {
        for (index, kind) in StepKind::ALL.into_iter().enumerate() {
            if cancelled.is_cancelled() {
                return Ok(Attempt::Interrupted);
            }
            recorder.step(index, StepState::Running, None).await?;
            let (progress, details) = Progress::new();
            let work = self.tools.run(kind, environment, &progress);
            match recorder.while_running(index, details, work).await? {
                Ok(detail) => recorder.step(index, StepState::Succeeded, Some(detail)).await?,
                Err(error) => {
                    let reason = chain(&error);
                    recorder.step(index, StepState::Failed, Some(reason.clone())).await?;
                    return Ok(Attempt::Failed(reason));
                }
            }
        }
        Ok(Attempt::Succeeded)
    }

    fn back_off(&mut self, environment: &Environment) {
        let previous = self.failures.get(&environment.name).filter(|f| f.generation == environment.generation);
        let count = previous.map_or(0, |failure| failure.count + 1);
        let delay = (FIRST_RETRY * 2u32.saturating_pow(count.min(10))).min(LONGEST_RETRY);
        let failure = Failure { generation: environment.generation, count, retry_at: Instant::now() + delay };
        self.failures.insert(environment.name.clone(), failure);
    }
}
