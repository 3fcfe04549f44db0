//! Secrets: written, never read back.

use std::collections::HashMap;

use modal_proto::{
    ObjectCreationType, SecretDeleteRequest, SecretGetOrCreateRequest, SecretUpdateRequest,
    secret_update_request::Update,
};
use tonic::Code;

use crate::{
    error::{Result, found},
    wire::Client,
    wire::rpc,
};

/// What [`Client::create_secret`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretOutcome {
    Created,
    /// A Secret of that name exists; it was left as it is.
    Exists,
}

impl Client {
    /// Creates a Secret of environment variables, unless one of that name exists.
    ///
    /// # Errors
    /// [`crate::Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn create_secret(&self, name: &str, variables: HashMap<String, String>) -> Result<SecretOutcome> {
        let request = SecretGetOrCreateRequest {
            deployment_name: name.to_owned(),
            object_creation_type: ObjectCreationType::CreateFailIfExists.into(),
            env_dict: variables,
            environment_name: self.environment_name(),
            ..Default::default()
        };
        match rpc!(self, secret_get_or_create, request) {
            Ok(_) => Ok(SecretOutcome::Created),
            Err(error) if error.code() == Some(Code::AlreadyExists) => Ok(SecretOutcome::Exists),
            Err(error) => Err(error),
        }
    }

    /// Sets variables of an existing Secret, or removes them (`None`). Its other variables stay.
    ///
    /// # Errors
    /// [`crate::Error::Rpc`], with the code `NOT_FOUND` if there is no Secret of this name.
    pub async fn update_secret(&self, name: &str, variables: HashMap<String, Option<String>>) -> Result<()> {
        let request = SecretGetOrCreateRequest {
            deployment_name: name.to_owned(),
            environment_name: self.environment_name(),
            ..Default::default()
        };
        let secret_id = rpc!(self, secret_get_or_create, request)?.secret_id;
        let updates: Vec<_> = variables.into_iter().map(|(key, value)| Update { key, value }).collect();
        if updates.is_empty() {
            return Ok(());
        }
        rpc!(self, secret_update, SecretUpdateRequest { secret_id, updates }).map(|_| ())
    }

    /// Removes the Secret of this name with its contents; returns whether there was one.
    ///
    /// # Errors
    /// [`crate::Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn delete_secret(&self, name: &str) -> Result<bool> {
        let request = SecretGetOrCreateRequest {
            deployment_name: name.to_owned(),
            environment_name: self.environment_name(),
            ..Default::default()
        };
        let Some(it) = found(rpc!(self, secret_get_or_create, request))? else { return Ok(false) };
        let secret_id = it.secret_id;
        Ok(found(rpc!(self, secret_delete, SecretDeleteRequest { secret_id }))?.is_some())
    }
}
