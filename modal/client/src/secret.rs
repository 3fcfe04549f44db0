//! Secrets: written, never read back.

use std::collections::HashMap;

use modal_proto::{ObjectCreationType, SecretGetOrCreateRequest};
use tonic::Code;

use crate::{error::Result, wire::Client, wire::rpc};

/// What [`Client::create_secret`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretOutcome {
    Created,
    /// A Secret of that name exists; it was left as it is.
    Exists,
}

impl Client {
    /// Creates a Secret of environment variables, unless one of that name exists.
    pub async fn create_secret(&self, name: &str, variables: HashMap<String, String>) -> Result<SecretOutcome> {
        let request = SecretGetOrCreateRequest {
            deployment_name: name.to_owned(),
            object_creation_type: ObjectCreationType::CreateFailIfExists.into(),
            env_dict: variables,
            ..Default::default()
        };
        match rpc!(self, secret_get_or_create, request) {
            Ok(_) => Ok(SecretOutcome::Created),
            Err(error) if error.code() == Some(Code::AlreadyExists) => Ok(SecretOutcome::Exists),
            Err(error) => Err(error),
        }
    }
}
