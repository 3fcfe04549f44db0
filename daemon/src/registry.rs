//! What the user asked for: environments and the operations that bring them about.
//!
//! The registry only records wishes and wakes the reconciler. It talks to Modal for one thing: what is secret goes
//! straight to the Vault, before the wish is accepted, and is not recorded.

use std::{sync::Arc, time::Duration};

use airflow_serverless_api::{
    config::Config,
    environment::{CreateEnvironment, Environment, EnvironmentChange, EnvironmentName, EnvironmentState},
    operation::{FollowOperation, Operation, OperationKind, OperationState},
    problem::Fault,
};
use chrono::{DateTime, Utc};
use tokio::{
    sync::{Mutex, Notify, watch},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    error::{Error, Result},
    store::{NewOperation, Store},
    vault::Vault,
};

/// The time, as a parameter: tests and replays choose it.
pub type Clock = fn() -> DateTime<Utc>;

const LONGEST_WAIT_SECONDS: u32 = 30;

#[derive(Clone)]
pub struct Registry {
    pub(crate) store: Store,
    vault: Vault,
    /// Held while a wish is looked at and recorded, so that its secrets belong to it.
    wishing: Arc<Mutex<()>>,
    pub(crate) clock: Clock,
    /// There is something to reconcile.
    pub(crate) wake: Arc<Notify>,
    /// Bumped whenever an operation has changed.
    pub(crate) changed: watch::Sender<u64>,
    /// Cancelled when those who wait for a change are to be answered as it is.
    hang_up: CancellationToken,
}

impl Registry {
    pub fn new(store: Store, vault: Vault, clock: Clock) -> Self {
        let (wishing, wake, changed) = (Arc::default(), Arc::default(), watch::Sender::new(0));
        Self { store, vault, wishing, clock, wake, changed, hang_up: CancellationToken::new() }
    }

    /// Answers those who wait for a change, now and from now on: the daemon stops.
    pub fn hang_up(&self) {
        self.hang_up.cancel();
    }

    pub async fn list_environments(&self) -> Result<Vec<Environment>> {
        Ok(self.store.environments().await?)
    }

    pub async fn environment(&self, name: &EnvironmentName) -> Result<Environment> {
        self.store.environment(name).await?.ok_or_else(|| Error::EnvironmentNotFound(name.clone()))
    }

    /// The environment, if it has ever been brought to Modal completely.
    pub async fn deployed_environment(&self, name: &EnvironmentName) -> Result<Environment> {
        let environment = self.environment(name).await?;
        if environment.observed_generation == 0 {
            return Err(Error::EnvironmentNotReady(name.clone(), environment.error));
        }
        Ok(environment)
    }

    /// Records a new environment. One that exists with the same configuration is no error: it is answered as it is,
    /// with new work only if it is not ready. (Secrets are not compared: nobody but Modal knows the old ones.)
    pub async fn create_environment(&self, request: CreateEnvironment) -> Result<EnvironmentChange> {
        let CreateEnvironment { name, config: wanted } = request;
        wanted.validate().map_err(Error::InvalidConfig)?;
        let config = wanted.without_secrets();
        let _wishing = self.wishing.lock().await;
        match self.store.environment(&name).await? {
            None => {
                self.vault.keep(&name, &wanted, None).await?;
                let operation = new_operation(OperationKind::Create);
                self.store.insert_environment(&name, &config, &operation, (self.clock)()).await?;
                self.started(&name, operation.id).await
            }
            Some(environment) if environment.config != config => Err(Error::EnvironmentDiffers(name)),
            Some(environment) if environment.state == EnvironmentState::Ready => {
                Ok(EnvironmentChange { environment, operation: None })
            }
            Some(environment) => {
                self.vault.keep(&name, &wanted, Some(&environment.config)).await?;
                self.resume(environment).await
            }
        }
    }

    /// Sets another configuration; the same one again, without secrets, changes nothing.
    pub async fn update_environment(&self, name: &EnvironmentName, wanted: Config) -> Result<EnvironmentChange> {
        wanted.validate().map_err(Error::InvalidConfig)?;
        let config = wanted.without_secrets();
        let _wishing = self.wishing.lock().await;
        let environment = self.environment(name).await?;
        if environment.config.database.kind != config.database.kind {
            let message = "cannot be changed, as the metadata would stay behind: create another environment";
            return Err(Error::InvalidConfig(vec![Fault::new("database.type", message)]));
        }
        let is_as_wanted = environment.config == config && environment.state == EnvironmentState::Ready;
        if is_as_wanted && wanted == config {
            return Ok(EnvironmentChange { environment, operation: None });
        }
        self.vault.keep(name, &wanted, Some(&environment.config)).await?;
        self.apply(name, &config).await
    }

    /// Follows the work under way, or starts it again if it has failed.
    async fn resume(&self, environment: Environment) -> Result<EnvironmentChange> {
        match self.store.latest_operation(&environment.name).await? {
            Some(operation) if operation.state == OperationState::Running => {
                Ok(EnvironmentChange { environment, operation: Some(operation) })
            }
            _ => self.apply(&environment.name, &environment.config).await,
        }
    }

    async fn apply(&self, name: &EnvironmentName, config: &Config) -> Result<EnvironmentChange> {
        let operation = new_operation(OperationKind::Update);
        self.store.update_environment(name, config, &operation, (self.clock)()).await?;
        self.started(name, operation.id).await
    }

    async fn started(&self, name: &EnvironmentName, operation: Uuid) -> Result<EnvironmentChange> {
        self.wake.notify_one();
        let environment = self.environment(name).await?;
        Ok(EnvironmentChange { environment, operation: self.store.operation(operation).await? })
    }

    /// The operation; if asked to, waits until it has changed.
    pub async fn operation(&self, id: Uuid, follow: &FollowOperation) -> Result<Operation> {
        let seconds = follow.wait_seconds.unwrap_or(0).min(LONGEST_WAIT_SECONDS);
        let deadline = Instant::now() + Duration::from_secs(seconds.into());
        let mut changes = self.changed.subscribe();
        loop {
            changes.borrow_and_update();
            let operation = self.store.operation(id).await?.ok_or(Error::OperationNotFound(id))?;
            let is_news = follow.after.is_none_or(|revision| operation.revision > revision);
            // Of what has ended there is no more news to wait for.
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
}

fn new_operation(kind: OperationKind) -> NewOperation {
    NewOperation { id: Uuid::now_v7(), kind }
}
