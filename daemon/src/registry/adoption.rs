//! Environments that are deployed but not registered: the registry was lost, or they belong to another daemon.
//!
//! The Volume of each environment holds a description of it, which adoption reads. The description omits the values of
//! `env` and the connection string: they stay in the Secret.

use airflow_serverless_api::{
    config::{Config, PreviousConfig},
    environment::{
        Environment, EnvironmentChange, EnvironmentName, Target, UnregisteredEnvironment, UnregisteredEnvironmentList,
    },
    event::EventKind,
    operation::OperationKind,
};
use modal_client::{Client, File, Volume};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Registry, new_operation};
use crate::{
    error::{Error, Result},
    report::chain,
};

/// Path of the description on the Volume.
const PATH: &str = "/data/environment.json";
/// Prefix of the names of Apps.
const APP: &str = "airflow-serverless-";

#[derive(Serialize, Deserialize)]
struct Description {
    name: EnvironmentName,
    config: Config,
}

/// Writes the description of an environment to its Volume.
pub async fn describe(volume: &Volume, environment: &Environment) -> Result<()> {
    let Environment { name, config, .. } = environment;
    let description = Description { name: name.clone(), config: config.without_secrets() };
    let content = serde_json::to_vec_pretty(&description).map_err(|error| Error::Description(error.to_string()))?;
    Ok(volume.put(vec![File { path: PATH.to_owned(), content: content.into() }]).await?)
}

/// Reads the configuration of an environment from its Volume.
async fn described(client: &Client, name: &EnvironmentName) -> Result<Config> {
    let missing = || Error::Description("there is none".to_owned());
    let volume = client.find_volume(&name.volume()).await?.ok_or_else(missing)?;
    let content = volume.read(PATH).await?.ok_or_else(missing)?;
    let Description { name: described, config } =
        serde_json::from_slice(&content).map_err(|error| Error::Description(error.to_string()))?;
    if described != *name {
        return Err(Error::Description(format!("it describes the environment {described}")));
    }
    config.validate(PreviousConfig::Known(&config)).map_err(Error::InvalidConfig)?;
    Ok(config)
}

impl Registry {
    /// Lists environments that are deployed but not registered.
    pub async fn unregistered_environments(&self) -> Result<UnregisteredEnvironmentList> {
        let mut environments = self.unregistered(Target::Local, &self.modal.local()).await?;
        let error = match self.unregistered_in_the_cloud().await {
            Ok(found) => {
                environments.extend(found);
                None
            }
            Err(error) => Some(chain(&error)),
        };
        environments.sort_by(|one, other| one.name.cmp(&other.name));
        let total_entries = environments.len() as i64;
        Ok(UnregisteredEnvironmentList { environments, total_entries, error })
    }

    async fn unregistered_in_the_cloud(&self) -> Result<Vec<UnregisteredEnvironment>> {
        let mut found = Vec::new();
        for client in self.modal.cloud_environments().await? {
            found.extend(self.unregistered(Target::Modal, &client).await?);
        }
        Ok(found)
    }

    async fn unregistered(&self, target: Target, client: &Client) -> Result<Vec<UnregisteredEnvironment>> {
        let apps = client.deployed_apps().await?;
        let names = apps.iter().filter_map(|app| app.strip_prefix(APP)?.parse::<EnvironmentName>().ok());
        let known = self.environment_names().await?;
        let mut found = Vec::new();
        for name in names.filter(|name| !known.contains(name)) {
            let config = match described(client, &name).await {
                Ok(config) => Some(config),
                Err(Error::Description(_) | Error::InvalidConfig(_)) => None,
                Err(error) => return Err(error),
            };
            found.push(UnregisteredEnvironment { name, target, config });
        }
        Ok(found)
    }

    /// Registers a deployed environment with the configuration of its last deployment, and redeploys it. An environment
    /// that is registered already is returned as it is.
    pub async fn adopt_environment(&self, name: &EnvironmentName) -> Result<EnvironmentChange> {
        let _changing = self.changing.lock(name).await;
        if let Some(environment) = self.base.store.environment(name).await? {
            return Ok(EnvironmentChange { environment, operation: self.running_operation(name).await? });
        }
        let (target, client) = self.deployed(name).await?.ok_or_else(|| Error::NotDeployed(name.clone()))?;
        let config = described(&client, name).await.map_err(|error| Error::NotAdopted(name.clone(), chain(&error)))?;
        let operation = new_operation(OperationKind::Create);
        self.base.store.insert_environment(name, (target, &config), &operation, self.base.now()).await?;
        self.started(name, (EventKind::EnvironmentCreated, json!({"adopted": true})), operation.id).await
    }

    /// Returns where the environment is deployed. Queries Modal's cloud only for what Local Modal does not have.
    async fn deployed(&self, name: &EnvironmentName) -> Result<Option<(Target, Client)>> {
        let app = name.app();
        let local = self.modal.local();
        if local.deployed_apps().await?.contains(&app) {
            return Ok(Some((Target::Local, local)));
        }
        for client in self.modal.cloud_environments().await? {
            if client.deployed_apps().await?.contains(&app) {
                return Ok(Some((Target::Modal, client)));
            }
        }
        Ok(None)
    }
}
