//! Connections to Modal's cloud.

use airflow_serverless_api::credentials::{CredentialsStatus, PutCredentials, StoreCredentials};
use chrono::{DateTime, Utc};
use modal_client::{Client, Token};

use super::{Credentials, CredentialsFile, ModalError};

/// Connects to Modal with these credentials.
pub(super) async fn connect(credentials: &Credentials) -> Result<Client, modal_client::Error> {
    let secret = credentials.token_secret.expose().to_owned();
    let token = Token { id: credentials.token_id.clone(), secret };
    Client::connect(&credentials.server_url, &token).await
}

/// Checks the credentials with the server, unless asked not to, and stores them.
pub async fn sign_in(
    file: &CredentialsFile,
    wanted: PutCredentials,
    how: StoreCredentials,
    now: DateTime<Utc>,
) -> Result<CredentialsStatus, ModalError> {
    let mut credentials = Credentials::new(wanted, now)?;
    if !how.skip_check {
        credentials.workspace = Some(connect(&credentials).await?.workspace().await?);
    }
    file.write(&credentials)?;
    Ok(file.status()?)
}
