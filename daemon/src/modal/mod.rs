//! Where environments run: Local Modal inside the daemon, or Modal's cloud. Only this module knows that the emulator is
//! embedded.

mod connect;
mod credentials;
mod error;
mod local;

use std::sync::Arc;

use airflow_serverless_api::{config::Config, environment::Target};
use chrono::{DateTime, Utc};
use modal_client::{Client, Token};
use tokio::sync::Mutex;

/// The version of uv that both install with.
pub use modal_emulator::UV;
/// The asynchronous runtime of a program with Local Modal inside.
pub use modal_emulator::runtime;
pub use modal_emulator::{KillSwitch, LocalModalHealth};

use self::connect::connect;
pub use self::{
    connect::sign_in,
    credentials::{Credentials, CredentialsError, CredentialsFile},
    error::ModalError,
    local::LocalModal,
};

/// How the SDK connects to a Modal server.
#[derive(Clone)]
pub struct Server {
    pub url: String,
    pub token: Token,
    /// The Modal environment; the workspace's default if empty.
    pub environment: String,
}

/// The Modal servers that environments run on.
#[derive(Clone)]
pub struct Modal {
    local: Client,
    local_server: Server,
    credentials: CredentialsFile,
    /// The cached connection and the credentials it uses.
    cloud: Arc<Mutex<Option<(Credentials, Client)>>>,
}

impl Modal {
    pub async fn new(local: &LocalModal, credentials: CredentialsFile) -> Result<Self, ModalError> {
        let (url, token) = local.address();
        let client = Client::connect(&url, &token).await?;
        let local_server = Server { url, token, environment: String::new() };
        Ok(Self { local: client, local_server, credentials, cloud: Arc::default() })
    }

    /// Returns the URL of Local Modal.
    pub fn local_server_url(&self) -> &str {
        &self.local_server.url
    }

    /// Returns the target of environments whose configuration does not name one.
    pub fn default_target(&self) -> Result<Target, ModalError> {
        Ok(if self.credentials.read()?.is_some() { Target::Modal } else { Target::Local })
    }

    /// Returns the client of an environment's server.
    pub async fn client(&self, target: Target, config: &Config) -> Result<Client, ModalError> {
        match target {
            Target::Local => Ok(self.local.clone()),
            Target::Modal => Ok(self.cloud().await?.in_environment(&config.modal.environment)),
        }
    }

    /// Returns the client of Local Modal.
    pub fn local(&self) -> Client {
        self.local.clone()
    }

    /// Returns a client for each Modal environment of the workspace; empty without credentials.
    pub async fn cloud_environments(&self) -> Result<Vec<Client>, ModalError> {
        if self.credentials.read()?.is_none() {
            return Ok(Vec::new());
        }
        let cloud = self.cloud().await?;
        let names = cloud.environments().await?;
        Ok(names.iter().map(|name| cloud.in_environment(name)).collect())
    }

    /// Returns how the SDK connects to an environment's server.
    pub fn server(&self, target: Target, config: &Config) -> Result<Server, ModalError> {
        match target {
            Target::Local => Ok(self.local_server.clone()),
            Target::Modal => {
                let Credentials { token_id, token_secret, server_url, .. } =
                    self.credentials.read()?.ok_or(ModalError::NoCredentials)?;
                let token = Token { id: token_id, secret: token_secret.expose().to_owned() };
                Ok(Server { url: server_url, token, environment: config.modal.environment.clone() })
            }
        }
    }

    /// Returns the connection to Modal's cloud; reconnects if the credentials have changed.
    async fn cloud(&self) -> Result<Client, ModalError> {
        let mut cloud = self.cloud.lock().await;
        let credentials = self.credentials.read()?.ok_or(ModalError::NoCredentials)?;
        if let Some((of, client)) = &*cloud
            && *of == credentials
        {
            return Ok(client.clone());
        }
        let client = connect(&credentials).await?;
        *cloud = Some((credentials, client.clone()));
        Ok(client)
    }

    /// Returns the URL of Modal's cloud, if there are credentials for it.
    pub fn cloud_server_url(&self) -> Result<Option<String>, ModalError> {
        Ok(self.credentials.read()?.map(|credentials| credentials.server_url))
    }

    /// Fails unless Modal's cloud accepts the credentials.
    pub async fn check_cloud(&self) -> Result<(), ModalError> {
        self.cloud().await?.workspace().await?;
        Ok(())
    }

    /// Returns the time according to Modal's cloud, if it reports one.
    pub async fn cloud_time(&self) -> Result<Option<DateTime<Utc>>, ModalError> {
        let date = self.cloud().await?.date().await?;
        let time = date.and_then(|date| DateTime::parse_from_rfc2822(&date).ok());
        Ok(time.map(|time| time.to_utc()))
    }

    /// Fails unless Local Modal responds.
    pub async fn check(&self) -> Result<(), ModalError> {
        Ok(self.local.hello().await?)
    }
}
