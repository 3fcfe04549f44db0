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

/// The id of the blob with these contents.
pub fn blob_id(sha256_hex: &str) -> String {
    format!("bl-{sha256_hex}")
}

/// The hash of the contents of a blob.
pub fn blob_hash(blob_id: &str) -> Option<&str> {
    blob_id.strip_prefix("bl-")
}
