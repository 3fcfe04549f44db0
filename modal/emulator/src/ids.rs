//! Names of new objects.

use uuid::Uuid;

/// A fresh object id such as `fu-…`. Ids of one kind sort in the order of their creation.
pub fn new_id(prefix: &str) -> String {
    format!("{prefix}-{}", Uuid::now_v7().simple())
}

/// An unguessable token of 256 bits, in hex.
pub fn new_token() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}
