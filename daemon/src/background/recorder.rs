//! Writes down how an operation gets on, so that it can be followed and survives the daemon.

use airflow_serverless_api::operation::{Operation, OperationState, Step, StepState};
use tokio::sync::watch;

use crate::{error::Result, registry::Registry};

/// The record of one attempt. An attempt that the reconciler makes by itself, long after the operation failed, has
/// nobody who follows it and leaves no record but the environment's state.
pub(super) struct Recorder {
    registry: Registry,
    operation: Option<Operation>,
}

impl Recorder {
    /// Begins an attempt: whatever an earlier one had done of `steps` is done again.
    pub fn new(registry: Registry, mut operation: Option<Operation>, steps: &[Step]) -> Self {
        if let Some(operation) = &mut operation {
            operation.steps = steps.to_vec();
        }
        Self { registry, operation }
    }

    pub async fn step(&mut self, index: usize, state: StepState, detail: Option<String>) -> Result<()> {
        if let Some(step) = self.operation.as_mut().and_then(|operation| operation.steps.get_mut(index)) {
            step.state = state;
            step.detail = detail;
        }
        self.save(OperationState::Running, None).await
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

    pub async fn finish(&mut self, error: Option<&str>) -> Result<()> {
        let state = if error.is_none() { OperationState::Succeeded } else { OperationState::Failed };
        self.save(state, error).await
    }

    async fn save(&self, state: OperationState, error: Option<&str>) -> Result<()> {
        if let Some(operation) = &self.operation {
            let now = (self.registry.clock)();
            self.registry.store.save_operation(operation.id, state, &operation.steps, error, now).await?;
            self.registry.changed.send_modify(|count| *count += 1);
        }
        Ok(())
    }
}
