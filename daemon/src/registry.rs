//! The desired state: environments, and the operations that apply it.
//!
//! The registry only records the desired state and wakes the reconciler. It accesses Modal for one thing: secrets go
//! straight to the Vault, before the change is accepted, and are not recorded.

pub mod adoption;

use std::{sync::Arc, time::Duration};

use airflow_serverless_api::{
    config::{Config, PreviousConfig},
    environment::{
        CreateEnvironment, DeleteEnvironment, Environment, EnvironmentChange, EnvironmentList, EnvironmentName,
        EnvironmentState, ListEnvironments,
    },
    event::EventKind,
    operation::{FollowOperation, ListOperations, Operation, OperationKind, OperationList, OperationState},
    problem::Fault,
};
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    base::Base,
    error::{Error, Result},
    locks::Locks,
    modal::Modal,
    model::Deletion,
    store::{Ended, NewOperation, OperationChange},
    vault,
};

const LONGEST_WAIT_SECONDS: u32 = 30;

#[derive(Clone)]
pub struct Registry {
    base: Base,
    modal: Modal,
    /// Held while the desired state is checked and recorded, so that it is consistent with its secrets.
    changing: Locks,
    /// Signals work for the reconciler.
    wake: Arc<Notify>,
    /// Signals the removal of an environment.
    removed: Arc<Notify>,
    /// Canceled when the daemon stops, so that waiting requests return at once.
    hang_up: CancellationToken,
}

impl Registry {
    pub fn new(base: Base, modal: Modal) -> Self {
        let (changing, wake, removed) = (Locks::default(), Arc::default(), Arc::default());
        Self { base, modal, changing, wake, removed, hang_up: CancellationToken::new() }
    }

    /// Waits until there is work for the reconciler; an earlier notification counts. One caller at a time.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Signals that an environment was removed.
    pub fn environment_removed(&self) {
        self.removed.notify_one();
    }

    /// Waits until an environment was removed; an earlier notification counts. One caller at a time.
    pub async fn removed(&self) {
        self.removed.notified().await;
    }

    /// Ends all waits for changes, now and from now on, as the daemon stops.
    pub fn hang_up(&self) {
        self.hang_up.cancel();
    }

    /// Fails unless the registry can be read and Modal can be reached.
    pub async fn check(&self) -> Result<()> {
        self.base.store.newest_event().await?;
        Ok(self.modal.check().await?)
    }

    pub async fn list_environments(&self, wanted: &ListEnvironments) -> Result<EnvironmentList> {
        let (environments, total_entries) = self.base.store.environments(wanted).await?;
        Ok(EnvironmentList { environments, total_entries })
    }

    pub async fn environment_names(&self) -> Result<Vec<EnvironmentName>> {
        let desired = self.base.store.desired_states().await?;
        Ok(desired.into_iter().map(|state| state.environment.name).collect())
    }

    pub async fn environment(&self, name: &EnvironmentName) -> Result<Environment> {
        self.base.store.environment(name).await?.ok_or_else(|| Error::EnvironmentNotFound(name.clone()))
    }

    /// Returns the environment if it has ever been fully deployed.
    pub async fn deployed_environment(&self, name: &EnvironmentName) -> Result<Environment> {
        let environment = self.wanted_environment(name).await?;
        if environment.observed_generation == 0 {
            return Err(Error::EnvironmentNotReady(name.clone(), environment.error));
        }
        Ok(environment)
    }

    /// Returns the environment unless it is being deleted.
    pub(crate) async fn wanted_environment(&self, name: &EnvironmentName) -> Result<Environment> {
        let environment = self.environment(name).await?;
        match environment.state {
            EnvironmentState::Deleting => Err(Error::EnvironmentDeleting(name.clone())),
            _ => Ok(environment),
        }
    }

    /// Records a new environment. An environment that exists with the same configuration is returned as it is, and
    /// redeployed only if it is not ready. (Secrets are not compared: only Modal knows the old ones.)
    pub async fn create_environment(&self, request: CreateEnvironment) -> Result<EnvironmentChange> {
        let CreateEnvironment { name, config: wanted } = request;
        wanted.validate(PreviousConfig::Nothing).map_err(Error::InvalidConfig)?;
        let config = wanted.without_secrets();
        let _changing = self.changing.lock(&name).await;
        match self.base.store.environment(&name).await? {
            None => {
                let target = wanted.target.map_or_else(|| self.modal.default_target(), Ok)?;
                vault::update_secret(&self.modal.client(target, &config).await?, &name, &wanted, None).await?;
                let operation = new_operation(OperationKind::Create);
                self.base.store.insert_environment(&name, (target, &config), &operation, self.base.now()).await?;
                self.started(&name, (EventKind::EnvironmentCreated, json!({})), operation.id).await
            }
            Some(environment) if environment.state == EnvironmentState::Deleting => {
                Err(Error::EnvironmentDeleting(name))
            }
            Some(environment) if environment.config != config => Err(Error::EnvironmentDiffers(name)),
            Some(environment) if environment.state == EnvironmentState::Ready => {
                Ok(EnvironmentChange { environment, operation: None })
            }
            Some(environment) => {
                self.keep_secrets(&environment, &wanted).await?;
                self.resume(environment).await
            }
        }
    }

    /// Sets another configuration; secrets that it does not mention stay. The same configuration without secrets
    /// changes nothing.
    pub async fn update_environment(
        &self,
        name: &EnvironmentName,
        wanted: Config,
        is_expected: impl FnOnce(&Environment) -> Result<()>,
    ) -> Result<EnvironmentChange> {
        let config = wanted.without_secrets();
        let _changing = self.changing.lock(name).await;
        let environment = self.wanted_environment(name).await?;
        is_expected(&environment)?;
        wanted.validate(PreviousConfig::Known(&environment.config)).map_err(Error::InvalidConfig)?;
        if let Some(key) = moved(&environment, &config) {
            let message = "cannot be changed, as the metadata would stay behind: create another environment";
            return Err(Error::InvalidConfig(vec![Fault::new(key, message)]));
        }
        if environment.config == config && wanted == config {
            return match environment.state {
                EnvironmentState::Ready => Ok(EnvironmentChange { environment, operation: None }),
                _ => self.resume(environment).await,
            };
        }
        self.keep_secrets(&environment, &wanted).await?;
        self.apply(name, &config).await
    }

    /// Marks an environment for deletion. A second request returns the running operation, and may extend what is
    /// removed.
    pub async fn delete_environment(
        &self,
        name: &EnvironmentName,
        wanted: DeleteEnvironment,
        is_expected: impl FnOnce(&Environment) -> Result<()>,
    ) -> Result<EnvironmentChange> {
        let _changing = self.changing.lock(name).await;
        let environment = self.environment(name).await?;
        is_expected(&environment)?;
        let deletion = if wanted.purge { Deletion::Purge } else { Deletion::Keep };
        let is_wanted = self.base.store.deletion(name).await?.is_some_and(|d| d == deletion || d == Deletion::Purge);
        if is_wanted && let Some(operation) = self.running_operation(name).await? {
            return Ok(EnvironmentChange { environment, operation: Some(operation) });
        }
        let operation = new_operation(OperationKind::Delete);
        self.base.store.delete_environment(name, deletion, &operation, self.base.now()).await?;
        self.started(name, (EventKind::EnvironmentDeleting, json!({"purge": wanted.purge})), operation.id).await
    }

    async fn keep_secrets(&self, environment: &Environment, wanted: &Config) -> Result<()> {
        let client = self.modal.client(environment.target, &environment.config).await?;
        vault::update_secret(&client, &environment.name, wanted, Some(&environment.config)).await
    }

    /// Returns the running operation, or starts the work again if it has failed.
    async fn resume(&self, environment: Environment) -> Result<EnvironmentChange> {
        match self.running_operation(&environment.name).await? {
            Some(operation) => Ok(EnvironmentChange { environment, operation: Some(operation) }),
            None => self.apply(&environment.name, &environment.config).await,
        }
    }

    async fn running_operation(&self, name: &EnvironmentName) -> Result<Option<Operation>> {
        let latest = self.base.store.latest_operation(name).await?;
        Ok(latest.filter(|operation| operation.state == OperationState::Running))
    }

    async fn apply(&self, name: &EnvironmentName, config: &Config) -> Result<EnvironmentChange> {
        let operation = new_operation(OperationKind::Update);
        self.base.store.update_environment(name, config, &operation, self.base.now()).await?;
        self.started(name, (EventKind::EnvironmentUpdated, json!({})), operation.id).await
    }

    async fn started(
        &self,
        name: &EnvironmentName,
        (kind, mut data): (EventKind, Value),
        operation: Uuid,
    ) -> Result<EnvironmentChange> {
        let environment = self.environment(name).await?;
        data["generation"] = environment.generation.into();
        data["operation_id"] = json!(operation);
        self.base.events.record(kind, name, data).await;
        // Woken after that, so that the events of the work follow the one of the request.
        self.wake.notify_one();
        Ok(EnvironmentChange { environment, operation: self.base.store.operation(operation).await? })
    }

    pub async fn list_operations(&self, wanted: &ListOperations) -> Result<OperationList> {
        let (operations, total_entries) = self.base.store.operations(wanted).await?;
        Ok(OperationList { operations, total_entries })
    }

    /// Returns the operation; optionally waits until it has changed.
    pub async fn operation(&self, id: Uuid, follow: &FollowOperation) -> Result<Operation> {
        let seconds = follow.wait_seconds.unwrap_or(0).min(LONGEST_WAIT_SECONDS);
        let deadline = Instant::now() + Duration::from_secs(seconds.into());
        let mut changes = self.base.events.changes();
        loop {
            changes.borrow_and_update();
            let operation = self.base.store.operation(id).await?.ok_or(Error::OperationNotFound(id))?;
            let is_news = follow.after.is_none_or(|revision| operation.revision > revision);
            // An operation that has ended does not change any more.
            let ended = operation.state != OperationState::Running;
            if is_news || ended || self.hang_up.is_cancelled() {
                return Ok(operation);
            }
            tokio::select! {
                () = self.hang_up.cancelled() => return Ok(operation),
                change = timeout_at(deadline, changes.changed()) => if change.is_err() { return Ok(operation) },
            }
        }
    }

    /// Cancels a running operation; finished steps stay. One that has ended is returned as it is.
    pub async fn cancel_operation(&self, id: Uuid) -> Result<Operation> {
        let operation = self.base.store.operation(id).await?.ok_or(Error::OperationNotFound(id))?;
        let _changing = self.changing.lock(&operation.environment).await;
        let operation = self.base.store.operation(id).await?.ok_or(Error::OperationNotFound(id))?;
        if operation.state != OperationState::Running {
            return Ok(operation);
        }
        if operation.kind == OperationKind::Delete {
            return Err(Error::DeletionNotCancelled(operation.environment));
        }
        let (environment, now) = (&operation.environment, self.base.now());
        let state = OperationState::Cancelled;
        let cancelled = OperationChange { id, state, steps: &operation.steps, error: Some("it was cancelled") };
        let ended = self.base.store.cancel_environment(environment, cancelled, now).await?;
        self.wake.notify_one();
        if ended == (Ended::Recorded { was_running: true }) {
            let data = json!({"operation_id": id, "state": state});
            self.base.events.record(EventKind::OperationEnded, environment, data).await;
        }
        self.base.store.operation(id).await?.ok_or(Error::OperationNotFound(id))
    }
}

/// Returns the key of a configuration that would move the environment, if any.
fn moved(environment: &Environment, wanted: &Config) -> Option<&'static str> {
    let Environment { target, config, .. } = environment;
    if wanted.target.is_some_and(|wanted| wanted != *target) {
        Some("target")
    } else if config.modal != wanted.modal {
        Some("modal.environment")
    } else if config.database.kind != wanted.database.kind {
        Some("database.type")
    } else {
        None
    }
}

fn new_operation(kind: OperationKind) -> NewOperation {
    NewOperation { id: Uuid::now_v7(), kind }
}
