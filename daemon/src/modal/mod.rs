//! Where environments run: Local Modal inside the daemon, or Modal's cloud. This is the one module that knows the
//! emulator to be inside.

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

/// How the SDK reaches a Modal server.
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
    /// The connection that these credentials made.
    cloud: Arc<Mutex<Option<(Credentials, Client)>>>,
}

impl Modal {
    pub async fn new(local: &LocalModal, credentials: CredentialsFile) -> Result<Self, ModalError> {
        let (url, token) = local.address();
        let client = Client::connect(&url, &token).await?;
        let local_server = Server { url, token, environment: String::new() };
        Ok(Self { local: client, local_server, credentials, cloud: Arc::default() })
    }

    /// Where Local Modal is.
    pub fn local_server_url(&self) -> &str {
        &self.local_server.url
    }

    /// Where an environment runs whose configuration does not say.
    pub fn default_target(&self) -> Result<Target, ModalError> {
        Ok(if self.credentials.read()?.is_some() { Target::Modal } else { Target::Local })
    }

    /// The client of an environment's server.
    pub async fn client(&self, target: Target, config: &Config) -> Result<Client, ModalError> {
        match target {
            Target::Local => Ok(self.local.clone()),
            Target::Modal => Ok(self.cloud().await?.in_environment(&config.modal.environment)),
        }
    }

    /// The client of Local Modal.
    pub fn local(&self) -> Client {
        self.local.clone()
    }

    /// A client for each Modal environment of the workspace; none without credentials.
    pub async fn cloud_environments(&self) -> Result<Vec<Client>, ModalError> {
        if self.credentials.read()?.is_none() {
            return Ok(Vec::new());
        }
        let cloud = self.cloud().await?;
        let names = cloud.environments().await?;
        Ok(names.iter().map(|name| cloud.in_environment(name)).collect())
    }

    /// How the SDK reaches an environment's server.
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

    /// The connection to Modal's cloud; made anew when there are other credentials.
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

    /// Where Modal's cloud is, if there are credentials for it.
    pub fn cloud_server_url(&self) -> Result<Option<String>, ModalError> {
        Ok(self.credentials.read()?.map(|credentials| credentials.server_url))
    }

    /// Fails unless Modal's cloud takes the credentials.
    pub async fn check_cloud(&self) -> Result<(), ModalError> {
        self.cloud().await?.workspace().await?;
        Ok(())
    }

    /// What the clock of Modal's cloud says, if it tells.
    pub async fn cloud_time(&self) -> Result<Option<DateTime<Utc>>, ModalError> {
        let date = self.cloud().await?.date().await?;
        let time = date.and_then(|date| DateTime::parse_from_rfc2822(&date).ok());
        Ok(time.map(|time| time.to_utc()))
    }

    /// Fails unless Local Modal answers.
    pub async fn check(&self) -> Result<(), ModalError> {
        Ok(self.local.hello().await?)
    }
}
