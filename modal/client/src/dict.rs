//! Dicts: small shared state, written and read by Python too.

use modal_proto::{
    DictDeleteRequest, DictEntry, DictGetOrCreateRequest, DictGetRequest, DictPopRequest, DictUpdateRequest,
    ObjectCreationType,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{Result, found},
    pickle,
    wire::{Client, rpc},
};

/// A Dict whose keys are text. Modal keeps no owner and no expiry of entries.
#[derive(Clone)]
pub struct Dict {
    client: Client,
    id: String,
}

impl Client {
    /// The Dict of this name, created if it is missing.
    ///
    /// # Errors
    /// [`crate::Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn dict(&self, name: &str) -> Result<Dict> {
        let request = DictGetOrCreateRequest {
            deployment_name: name.to_owned(),
            object_creation_type: ObjectCreationType::CreateIfMissing.into(),
            environment_name: self.environment_name(),
            ..Default::default()
        };
        let id = rpc!(self, dict_get_or_create, request)?.dict_id;
        Ok(Dict { client: self.clone(), id })
    }

    /// The Dict of this name, if there is one.
    ///
    /// # Errors
    /// [`crate::Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn find_dict(&self, name: &str) -> Result<Option<Dict>> {
        let request = DictGetOrCreateRequest {
            deployment_name: name.to_owned(),
            environment_name: self.environment_name(),
            ..Default::default()
        };
        let it = found(rpc!(self, dict_get_or_create, request))?;
        Ok(it.map(|it| Dict { client: self.clone(), id: it.dict_id }))
    }

    /// Removes the Dict of this name with its contents; returns whether there was one.
    ///
    /// # Errors
    /// [`crate::Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn delete_dict(&self, name: &str) -> Result<bool> {
        let Some(Dict { id: dict_id, .. }) = self.find_dict(name).await? else { return Ok(false) };
        Ok(found(rpc!(self, dict_delete, DictDeleteRequest { dict_id }))?.is_some())
    }
}

impl Dict {
    /// The value of an entry, or `None` if there is none.
    ///
    /// # Errors
    /// [`crate::Error::Rpc`] if the server cannot be reached or refuses the request, [`crate::Error::Unpickle`] if the
    /// value is not a `T`.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let request = DictGetRequest { dict_id: self.id.clone(), key: pickle::key(key).into() };
        let response = rpc!(self.client, dict_get, request)?;
        response.value.filter(|_| response.found).map(|value| pickle::loads(key, &value)).transpose()
    }

    /// Writes an entry, over an existing one.
    ///
    /// # Errors
    /// [`crate::Error::Rpc`] if the server cannot be reached or refuses the request, such as a value that is too large;
    /// [`crate::Error::Pickle`] if the value has no Python counterpart.
    pub async fn put<T: Serialize>(&self, key: &str, value: &T) -> Result<()> {
        self.update(key, value, false).await.map(|_| ())
    }

    /// Writes an entry unless the key exists; returns whether it was written. Atomic on the server.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn put_if_absent<T: Serialize>(&self, key: &str, value: &T) -> Result<bool> {
        self.update(key, value, true).await
    }

    /// Removes an entry; returns its value, or `None` if there was none.
    ///
    /// # Errors
    /// As [`Self::get`]. After [`crate::Error::Unpickle`] the entry is removed all the same.
    pub async fn pop<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let request = DictPopRequest { dict_id: self.id.clone(), key: pickle::key(key).into() };
        let response = rpc!(self.client, dict_pop, request)?;
        response.value.filter(|_| response.found).map(|value| pickle::loads(key, &value)).transpose()
    }

    async fn update<T: Serialize>(&self, key: &str, value: &T, if_not_exists: bool) -> Result<bool> {
        let entry = DictEntry { key: pickle::key(key).into(), value: pickle::dumps(key, value)?.into() };
        let request = DictUpdateRequest { dict_id: self.id.clone(), updates: vec![entry], if_not_exists };
        Ok(rpc!(self.client, dict_update, request)?.created)
    }
}
