//! Records the progress of an operation, so that clients can follow it and it survives a restart.

use airflow_serverless_api::{
    environment::EnvironmentName,
    event::EventKind,
    operation::{Operation, OperationState, Step, StepState},
};
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{base::Base, error::Result, metrics::Metrics, store::OperationChange};

/// The record of one attempt. Later automatic retries belong to no operation, so they update only the environment's
/// state.
pub(super) struct Recorder {
    base: Base,
    environment: EnvironmentName,
    operation: Option<Operation>,
    metrics: Metrics,
}

impl Recorder {
    /// Begins an attempt, which repeats all steps.
    pub fn new(
        base: Base,
        environment: EnvironmentName,
        mut operation: Option<Operation>,
        titles: impl Iterator<Item = &'static str>,
        metrics: Metrics,
    ) -> Self {
        if let Some(operation) = &mut operation {
            let pending = |title: &str| Step { title: title.to_owned(), state: StepState::Pending, detail: None };
            operation.steps = titles.map(pending).collect();
        }
        Self { base, environment, operation, metrics }
    }

    pub async fn step(&mut self, index: usize, state: StepState, detail: Option<String>) -> Result<()> {
        let Some(step) = self.operation.as_mut().and_then(|operation| operation.steps.get_mut(index)) else {
            return Ok(());
        };
        let data = (step.state != state).then(|| json!({"step": step.title, "state": state}));
        (step.state, step.detail) = (state, detail);
        self.save(data).await
    }

    /// Keeps the step's detail current while `work` runs.
    pub async fn while_running<T>(
        &mut self,
        index: usize,
        mut details: watch::Receiver<Option<String>>,
        work: impl Future<Output = T>,
    ) -> Result<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => return Ok(result),
                Ok(()) = details.changed() => {
                    let detail = details.borrow_and_update().clone();
                    self.step(index, StepState::Running, detail).await?;
                }
            }
        }
    }

    /// Returns the end of the operation, to be saved together with its result.
    pub fn ending<'a>(&'a self, error: Option<&'a str>) -> Option<OperationChange<'a>> {
        let Operation { id, steps, .. } = self.operation.as_ref()?;
        Some(OperationChange { id: *id, state: state_at_end(error), steps, error })
    }

    /// Emits the event for the end, once it is saved, unless the operation had ended before.
    pub async fn ended(&self, was_running: bool, error: Option<&str>) {
        let Some(operation) = &self.operation else { return };
        let state = state_at_end(error);
        self.metrics.operation(operation.kind, state);
        if was_running {
            self.tell(EventKind::OperationEnded, json!({"state": state, "error": error}), operation.id).await;
        }
    }

    /// Saves the progress and, for state changes, emits an event.
    async fn save(&self, event: Option<Value>) -> Result<()> {
        let Some(Operation { id, steps, .. }) = &self.operation else { return Ok(()) };
        let now = self.base.now();
        let change = OperationChange { id: *id, state: OperationState::Running, steps, error: None };
        if !self.base.store.save_operation(change, now).await? {
            // Just canceled: further progress is irrelevant.
            return Ok(());
        }
        match event {
            Some(data) => self.tell(EventKind::OperationStep, data, *id).await,
            None => self.base.events.notify(),
        }
        Ok(())
    }

    async fn tell(&self, kind: EventKind, mut data: Value, operation: Uuid) {
        data["operation_id"] = json!(operation);
        self.base.events.record(kind, &self.environment, data).await;
    }
}

fn state_at_end(error: Option<&str>) -> OperationState {
    if error.is_none() { OperationState::Succeeded } else { OperationState::Failed }
}
