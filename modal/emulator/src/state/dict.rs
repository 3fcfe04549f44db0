//! Dicts: maps of opaque keys and values.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Creation, Now, State, own};
use crate::{
    error::Error,
    ids::new_id,
    store::{Change, Record},
};

/// The largest key or value.
pub const MAX_VALUE_BYTES: usize = 100 << 20;
/// The most entries of one update.
const MAX_UPDATES: usize = 10_000;

/// A Dict. Keys are compared as bytes, as on Modal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Dict {
    pub id: String,
    /// Empty for an anonymous Dict.
    pub name: String,
    pub environment: String,
    pub created_at: f64,
    pub ephemeral: bool,
    #[serde(skip)]
    pub entries: BTreeMap<Bytes, Bytes>,
}

impl Record for Dict {
    const KIND: &'static str = "dict";
    fn id(&self) -> &str {
        &self.id
    }
}

/// A stored entry of a Dict; its id is the Dict's id and the key in hex.
#[derive(Debug, Serialize, Deserialize)]
pub struct DictItem {
    pub id: String,
    #[serde(skip)]
    pub value: Bytes,
}

impl DictItem {
    fn id_of(dict_id: &str, key: &[u8]) -> String {
        format!("{dict_id}/{}", hex::encode(key))
    }

    /// The Dict's id and the key, if the record's id has that form.
    pub fn place(&self) -> Option<(&str, Bytes)> {
        let (dict_id, key) = self.id.split_once('/')?;
        Some((dict_id, hex::decode(key).ok()?.into()))
    }
}

impl Record for DictItem {
    const KIND: &'static str = "dict-item";
    fn id(&self) -> &str {
        &self.id
    }
    fn payload(&self) -> Bytes {
        self.value.clone()
    }
    fn set_payload(&mut self, payload: Bytes) {
        self.value = payload;
    }
}

impl State {
    /// The Dict of an id.
    pub fn dict(&self, id: &str) -> Result<&Dict, Error> {
        self.dicts.get(id).ok_or_else(|| Error::not_found("Dict", id))
    }

    fn dict_mut(&mut self, id: &str) -> Result<&mut Dict, Error> {
        self.dicts.get_mut(id).ok_or_else(|| Error::not_found("Dict", id))
    }

    /// Gets or creates a Dict; `data` fills a new or overwritten one.
    pub fn get_or_create_dict(
        &mut self,
        request: modal_proto::DictGetOrCreateRequest,
        now: Now,
    ) -> Result<String, Error> {
        let (name, environment) = (request.deployment_name, self.environment(&request.environment_name)?);
        let existing =
            self.dicts.values().find(|d| !d.name.is_empty() && d.name == name && d.environment == environment);
        let creation = Creation::decide("Dict", &name, request.object_creation_type, existing.map(|d| d.id.clone()))?;
        check_entries(&request.data)?;
        let (name, ephemeral) = match creation {
            Creation::Existing(id) => return Ok(id),
            Creation::Overwrite(id) => {
                self.clear_dict(&id)?;
                self.update_dict(&id, request.data, false)?;
                return Ok(id);
            }
            Creation::Named => (name, false),
            Creation::Anonymous { ephemeral } => (String::new(), ephemeral),
        };
        let id = new_id("di");
        let dict =
            Dict { id: id.clone(), name, environment, created_at: now.wall, ephemeral, entries: BTreeMap::new() };
        self.save(&dict);
        self.dicts.insert(id.clone(), dict);
        self.update_dict(&id, request.data, false)?;
        Ok(id)
    }

    /// Writes entries, or with `if_not_exists` those whose key does not exist. Returns whether anything was written.
    pub fn update_dict(
        &mut self,
        id: &str,
        updates: Vec<modal_proto::DictEntry>,
        if_not_exists: bool,
    ) -> Result<bool, Error> {
        check_entries(&updates)?;
        let dict = self.dict_mut(id)?;
        let mut changes = Vec::new();
        for entry in updates {
            if if_not_exists && dict.entries.contains_key(&entry.key) {
                continue;
            }
            let (key, value) = (own(&entry.key), own(&entry.value));
            changes.push(Change::put(&DictItem { id: DictItem::id_of(id, &key), value: value.clone() }));
            dict.entries.insert(key, value);
        }
        let written = !changes.is_empty();
        self.changes.extend(changes);
        Ok(written)
    }

    /// Removes an entry and returns its value, if it was there.
    pub fn pop_dict(&mut self, id: &str, key: &Bytes) -> Result<Option<Bytes>, Error> {
        let value = self.dict_mut(id)?.entries.remove(key);
        if value.is_some() {
            self.forget::<DictItem>(&DictItem::id_of(id, key));
        }
        Ok(value)
    }

    /// Removes every entry.
    pub fn clear_dict(&mut self, id: &str) -> Result<(), Error> {
        let entries = std::mem::take(&mut self.dict_mut(id)?.entries);
        for key in entries.keys() {
            self.forget::<DictItem>(&DictItem::id_of(id, key));
        }
        Ok(())
    }

    /// Removes a Dict and its entries.
    pub fn delete_dict(&mut self, id: &str) -> Result<(), Error> {
        self.clear_dict(id)?;
        self.dicts.remove(id);
        self.forget::<Dict>(id);
        Ok(())
    }
}

fn check_entries(entries: &[modal_proto::DictEntry]) -> Result<(), Error> {
    let too_large = entries.iter().map(|entry| entry.key.len().max(entry.value.len())).find(|n| *n > MAX_VALUE_BYTES);
    if let Some(length) = too_large {
        let reason = format!("it has {length} bytes, and at most {MAX_VALUE_BYTES} fit; use a Volume for it");
        return Err(Error::invalid("Dict entry", reason));
    }
    if entries.len() > MAX_UPDATES {
        let reason = format!("it has {} entries, and at most {MAX_UPDATES} fit; use several", entries.len());
        return Err(Error::invalid("Dict update", reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oversized_dict_updates_are_refused() {
        let entry = |length| modal_proto::DictEntry { key: Bytes::new(), value: vec![0; length].into() };
        assert!(check_entries(&[entry(MAX_VALUE_BYTES)]).is_ok());
        assert!(check_entries(&[entry(0), entry(MAX_VALUE_BYTES + 1)]).is_err());
        assert!(check_entries(&vec![entry(0); MAX_UPDATES + 1]).is_err());
    }
}
