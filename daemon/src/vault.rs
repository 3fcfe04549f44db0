//! The Secrets of environments: written to Modal, read by the functions there, and stored nowhere else.

use std::collections::HashMap;

use airflow_serverless_api::{
    config::{Config, DatabaseKind},
    environment::EnvironmentName,
};
use base64::{Engine, engine::general_purpose::URL_SAFE};
use modal_client::{Client, SecretOutcome};

use crate::error::Result;

/// Key size of Fernet.
const FERNET_BYTES: usize = 32;
/// The block size of SHA-512, with which Airflow signs tokens.
const SIGNING_BYTES: usize = 64;
/// The variable from which Airflow reads its connection string.
const CONNECTION_STRING: &str = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN";

/// Creates the environment's Secret unless it exists. Airflow's encryption and signing keys are created once and then
/// kept: new ones would make stored connections unreadable.
pub async fn ensure(client: &Client, environment: &EnvironmentName) -> Result<SecretOutcome> {
    let variables = HashMap::from([
        ("AIRFLOW__CORE__FERNET_KEY".to_owned(), random_key::<FERNET_BYTES>()),
        ("AIRFLOW__API_AUTH__JWT_SECRET".to_owned(), random_key::<SIGNING_BYTES>()),
        ("AIRFLOW__API__SECRET_KEY".to_owned(), random_key::<SIGNING_BYTES>()),
    ]);
    Ok(client.create_secret(&environment.secret(), variables).await?)
}

/// Stores the secrets of a configuration in the environment's Secret, and removes the variables of the previous
/// configuration that it no longer has.
pub async fn update_secret(
    client: &Client,
    environment: &EnvironmentName,
    config: &Config,
    before: Option<&Config>,
) -> Result<()> {
    // Variables that it still has are set below, or left unchanged.
    let before = before.into_iter().flat_map(Config::secret_variables);
    let mut variables: HashMap<String, Option<String>> = before.map(|variable| (variable.name, None)).collect();
    for variable in config.secret_variables() {
        match variable.value {
            Some(value) => variables.insert(variable.name, Some(value.expose().to_owned())),
            None => variables.remove(&variable.name),
        };
    }
    if let Some(text) = config.secret_connection_string() {
        variables.insert(CONNECTION_STRING.to_owned(), Some(text.expose().to_owned()));
    }
    if variables.is_empty() {
        return Ok(());
    }
    ensure(client, environment).await?;
    Ok(client.update_secret(&environment.secret(), variables).await?)
}

/// Removes the configuration's values from the environment's Secret, but leaves the keys, without which the remaining
/// data could not be read. Returns whether there was a Secret.
pub async fn clear(client: &Client, environment: &EnvironmentName, config: &Config) -> Result<bool> {
    let connection_string = (config.database.kind == DatabaseKind::Postgres).then(|| CONNECTION_STRING.to_owned());
    let names = config.secret_variables().map(|variable| variable.name).chain(connection_string);
    let variables = names.map(|name| (name, None)).collect();
    match client.update_secret(&environment.secret(), variables).await {
        Err(error) if error.is_not_found() => Ok(false),
        cleared => Ok(cleared.map(|()| true)?),
    }
}

/// Generates random bytes in URL-safe base64, the format of a Fernet key.
fn random_key<const BYTES: usize>() -> String {
    URL_SAFE.encode(std::array::from_fn::<u8, BYTES, _>(|_| rand::random()))
}
