//! Records, and the rows that they are stored in.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::StoreError;

/// An object that outlives the process.
pub trait Record: Serialize + DeserializeOwned {
    /// The name of its kind in the database.
    const KIND: &'static str;
    /// Its id, unique within the kind; records are loaded in the order of their ids.
    fn id(&self) -> &str;
    /// Bytes kept beside the JSON.
    fn payload(&self) -> Bytes {
        Bytes::new()
    }
    /// Restores the payload after loading.
    fn set_payload(&mut self, _payload: Bytes) {}
}

/// One row to write or to remove.
#[derive(Debug)]
pub enum Change {
    Put { kind: &'static str, id: String, value: String, payload: Bytes },
    Delete { kind: &'static str, id: String },
}

impl Change {
    /// Writes `record` as it is now.
    pub fn put<R: Record>(record: &R) -> Self {
        let value = serde_json::to_string(record).unwrap_or_else(|error| {
            // Records are plain structs with string keys, which JSON can always represent.
            unreachable!("a {} record is always valid JSON: {error}", R::KIND)
        });
        Self::Put { kind: R::KIND, id: record.id().to_owned(), value, payload: record.payload() }
    }

    /// Removes the record of kind `R` with this id.
    pub fn delete<R: Record>(id: &str) -> Self {
        Self::Delete { kind: R::KIND, id: id.to_owned() }
    }

    pub(super) fn key(&self) -> (&'static str, &str) {
        match self {
            Self::Put { kind, id, .. } | Self::Delete { kind, id } => (kind, id),
        }
    }
}

/// A loaded row.
pub struct StoredRow {
    pub kind: String,
    pub(super) id: String,
    pub(super) value: String,
    pub(super) payload: Bytes,
}

impl StoredRow {
    /// The row that a change leaves, if it leaves one.
    #[cfg(test)]
    pub fn after(change: Change) -> Option<Self> {
        match change {
            Change::Put { kind, id, value, payload } => Some(Self { kind: kind.to_owned(), id, value, payload }),
            Change::Delete { .. } => None,
        }
    }

    /// Decodes the row into its record.
    pub fn decode<R: Record>(self) -> Result<R, StoreError> {
        let mut record: R = serde_json::from_str(&self.value).map_err(|source| StoreError::Decode {
            kind: self.kind,
            id: self.id,
            source,
        })?;
        record.set_payload(self.payload);
        Ok(record)
    }
}
