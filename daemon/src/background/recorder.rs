//! Writes down how an operation gets on, so that it can be followed and survives the daemon.

use airflow_serverless_api::{
    environment::EnvironmentName,
    event::EventKind,
    operation::{Operation, OperationState, Step, StepState},
};
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{base::Base, error::Result, metrics::Metrics, store::OperationChange};

/// The record of one attempt. An attempt that the reconciler makes by itself, long after the operation failed, has
/// nobody who follows it and leaves no record but the environment's state.
pub(super) struct Recorder {
    base: Base,
    environment: EnvironmentName,
    operation: Option<Operation>,
    metrics: Metrics,
}

impl Recorder {
    /// Begins an attempt: whatever an earlier one had done of the steps is done again.
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

    /// The end of the operation, to be written together with what it has come to.
    pub fn ending<'a>(&'a self, error: Option<&'a str>) -> Option<OperationChange<'a>> {
        let Operation { id, steps, .. } = self.operation.as_ref()?;
        Some(OperationChange { id: *id, state: state_at_end(error), steps, error })
    }

    /// Tells of the end, once it is written; unless it had one before.
    pub async fn ended(&self, was_running: bool, error: Option<&str>) {
        let Some(operation) = &self.operation else { return };
        let state = state_at_end(error);
        self.metrics.operation(operation.kind, state);
        if was_running {
            self.tell(EventKind::OperationEnded, json!({"state": state, "error": error}), operation.id).await;
        }
    }

    /// Writes how the operation gets on and, if there is news for others than its followers, an event.
    async fn save(&self, event: Option<Value>) -> Result<()> {
        let Some(Operation { id, steps, .. }) = &self.operation else { return Ok(()) };
        let now = self.base.now();
        let change = OperationChange { id: *id, state: OperationState::Running, steps, error: None };
        if !self.base.store.save_operation(change, now).await? {
            // Cancelled a moment ago: what is still told is of no interest.
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
