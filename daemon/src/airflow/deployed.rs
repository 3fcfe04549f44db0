//! The handle on an environment that is deployed: all that people do with it are its methods, by noun in the files
//! beside this one.

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

/// An environment that is deployed, for one request. What it has at Modal is looked up when it is first needed, and is
/// known to later handles, too.
#[derive(Clone)]
pub struct Deployed {
    pub(super) airflow: Arc<Airflow>,
    pub(super) environment: Arc<Environment>,
    pub(super) client: Client,
    objects: Arc<Objects>,
}

/// What a deployment has at Modal, as far as it was looked up.
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

    /// Whether these are the objects of this deployment, found with the same credentials.
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

/// An object at Modal: looked up once, by one of those who need it.
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

    /// As [`get`](Self::get), of an object that may not be there.
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

/// The objects of the newest deployment of each environment.
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

    /// Forgets environments that are not there any more.
    pub fn retain(&self, is_there: impl Fn(&EnvironmentName) -> bool) {
        self.0.lock().retain(|name, _| is_there(name));
    }
}

impl Airflow {
    /// The handle on an environment that is deployed.
    ///
    /// # Errors
    /// `EnvironmentNotFound`, `EnvironmentDeleting`, `EnvironmentNotReady`; `Modal` if there are no credentials for its
    /// target.
    pub async fn deployed(self: &Arc<Self>, name: &EnvironmentName) -> Result<Deployed> {
        self.handle(self.registry.deployed_environment(name).await?).await
    }

    /// The handle on an environment that is deployed, or is about to be.
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

    /// The Dict, if there is one; it is not created.
    pub(super) async fn find_dict(&self) -> Result<Option<Dict>> {
        self.objects.dict.find(self.client.find_dict(&self.environment.names.dict)).await
    }

    pub(super) async fn run_tick(&self) -> Result<Function> {
        self.objects.run_tick.get(self.client.function(&self.environment.names.app, "run_tick")).await
    }

    /// The function that reads PostgreSQL.
    pub(super) async fn query_metadata(&self) -> Result<Function> {
        self.objects.query_metadata.get(self.client.function(&self.environment.names.app, "query_metadata")).await
    }

    /// Uses what the environment has at Modal. If Modal says that some of it is gone, it is looked up again and used
    /// once more, unless the environment has gone with it.
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
