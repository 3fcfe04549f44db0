//! The handle on a deployed environment. Its methods are the operations on Airflow, by noun in the sibling files.

use std::{collections::HashMap, sync::Arc};

use airflow_serverless_api::{
    environment::{Environment, EnvironmentName},
    event::EventKind,
};
use chrono::{DateTime, Utc};
use modal_client::{Client, Dict, Function, Volume};
use serde_json::Value;
use tokio::sync::Mutex;

use super::Airflow;
use crate::error::{Error, Result};

/// A deployed environment, for one request. Its objects at Modal are looked up when first needed and cached for later
/// handles.
#[derive(Clone)]
pub struct Deployed {
    pub(super) airflow: Arc<Airflow>,
    pub(super) environment: Arc<Environment>,
    pub(super) client: Client,
    objects: Arc<Objects>,
}

/// The objects of a deployment at Modal, looked up on demand.
struct Objects {
    created_at: DateTime<Utc>,
    generation: i64,
    client: Client,
    volume: Lookup<Volume>,
    dict: Lookup<Dict>,
    run_tick: Lookup<Function>,
    query_metadata: Lookup<Function>,
}

impl Objects {
    fn new(environment: &Environment, client: Client) -> Self {
        let Environment { created_at, observed_generation: generation, .. } = *environment;
        let (volume, dict) = (Lookup::default(), Lookup::default());
        let (run_tick, query_metadata) = (Lookup::default(), Lookup::default());
        Self { created_at, generation, client, volume, dict, run_tick, query_metadata }
    }

    /// Whether these objects belong to this deployment and were looked up with the same credentials.
    fn are_of(&self, environment: &Environment, client: &Client) -> bool {
        self.created_at == environment.created_at
            && self.generation == environment.observed_generation
            && self.client.shares_connection_with(client)
    }

    async fn forget(&self) {
        self.volume.forget().await;
        self.dict.forget().await;
        self.run_tick.forget().await;
        self.query_metadata.forget().await;
    }
}

/// A cached object at Modal, looked up once even under concurrent use.
struct Lookup<T>(Mutex<Option<T>>);

impl<T> Default for Lookup<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Lookup<T> {
    async fn get(&self, look_up: impl Future<Output = modal_client::Result<T>>) -> Result<T> {
        let mut known = self.0.lock().await;
        if let Some(object) = &*known {
            return Ok(object.clone());
        }
        Ok(known.insert(look_up.await?).clone())
    }

    /// Like [`get`](Self::get), for an object that may not exist.
    async fn find(&self, look_up: impl Future<Output = modal_client::Result<Option<T>>>) -> Result<Option<T>> {
        let mut known = self.0.lock().await;
        if known.is_none() {
            *known = look_up.await?;
        }
        Ok(known.clone())
    }

    async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

/// The objects of the latest deployment of each environment.
#[derive(Default)]
pub(super) struct KnownObjects(parking_lot::Mutex<HashMap<EnvironmentName, Arc<Objects>>>);

impl KnownObjects {
    fn of(&self, environment: &Environment, client: &Client) -> Arc<Objects> {
        let mut known = self.0.lock();
        match known.get(&environment.name) {
            Some(objects) if objects.are_of(environment, client) => objects.clone(),
            _ => {
                let objects = Arc::new(Objects::new(environment, client.clone()));
                known.insert(environment.name.clone(), objects.clone());
                objects
            }
        }
    }

    /// Forgets environments that no longer exist.
    pub fn retain(&self, is_there: impl Fn(&EnvironmentName) -> bool) {
        self.0.lock().retain(|name, _| is_there(name));
    }
}

impl Airflow {
    /// Returns the handle on a deployed environment.
    ///
    /// # Errors
    /// `EnvironmentNotFound`, `EnvironmentDeleting`, `EnvironmentNotReady`; `Modal` if there are no credentials for its
    /// target.
    pub async fn deployed(self: &Arc<Self>, name: &EnvironmentName) -> Result<Deployed> {
        self.handle(self.registry.deployed_environment(name).await?).await
    }

    /// Returns the handle on an environment that is deployed or about to be.
    pub async fn wanted(self: &Arc<Self>, name: &EnvironmentName) -> Result<Deployed> {
        self.handle(self.registry.wanted_environment(name).await?).await
    }

    pub(super) async fn handle(self: &Arc<Self>, environment: Environment) -> Result<Deployed> {
        let client = self.modal.client(environment.target, &environment.config).await?;
        let objects = self.objects.of(&environment, &client);
        Ok(Deployed { airflow: self.clone(), environment: Arc::new(environment), client, objects })
    }
}

impl Deployed {
    pub fn name(&self) -> &EnvironmentName {
        &self.environment.name
    }

    pub(crate) async fn volume(&self) -> Result<Volume> {
        self.objects.volume.get(self.client.volume(&self.environment.names.volume)).await
    }

    pub(super) async fn dict(&self) -> Result<Dict> {
        self.objects.dict.get(self.client.dict(&self.environment.names.dict)).await
    }

    /// Returns the Dict if it exists; does not create it.
    pub(super) async fn find_dict(&self) -> Result<Option<Dict>> {
        self.objects.dict.find(self.client.find_dict(&self.environment.names.dict)).await
    }

    pub(super) async fn run_tick(&self) -> Result<Function> {
        self.objects.run_tick.get(self.client.function(&self.environment.names.app, "run_tick")).await
    }

    /// Returns the function that reads PostgreSQL.
    pub(super) async fn query_metadata(&self) -> Result<Function> {
        self.objects.query_metadata.get(self.client.function(&self.environment.names.app, "query_metadata")).await
    }

    /// Uses the objects of the environment at Modal. If Modal reports one as missing, looks them up again and retries
    /// once, unless the environment itself is gone.
    pub(super) async fn using_objects<T, F>(&self, act: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        match act().await {
            Err(error) if error.is_gone() => {
                self.forget_objects().await;
                let environment = self.airflow.registry.wanted_environment(self.name()).await?;
                if environment.created_at != self.environment.created_at {
                    return Err(Error::EnvironmentNotFound(self.name().clone()));
                }
                act().await
            }
            done => done,
        }
    }

    pub(super) async fn forget_objects(&self) {
        self.objects.forget().await;
    }

    pub(crate) async fn record(&self, kind: EventKind, data: Value) {
        self.airflow.record(kind, self.name(), data).await;
    }
}
