//! Encryption of records at rest, with a key in a file beside the database.
//!
//! A copy of the database shows none of its secrets without `state.key`. Whoever can read both can also use the server.
//! Both files are private to this user.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use bytes::{Buf, Bytes};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// Why a key, or data encrypted with it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error(
        "cannot read or write the key {path}, which encrypts the database. Restore the key from a copy. To start over, \
         move the database away, with the files whose names begin with its name: apps, Dicts, Queues and Secrets are \
         lost, the files of Volumes stay"
    )]
    Key { path: String, source: io::Error },
    #[error("{path} is not a key: restore it from a copy")]
    NotAKey { path: String },
    #[error(
        "cannot decrypt the record {kind} {id:?}: {path} is not its key, or the record is damaged. Restore the key from a \
         copy"
    )]
    OtherKey { path: String, kind: String, id: String },
    #[error("the system gives no random numbers")]
    Random,
}

/// Encrypts records and decrypts them.
pub struct Seal {
    key: LessSafeKey,
    path: PathBuf,
    random: SystemRandom,
}

impl Seal {
    /// Reads the key of a database from the file beside it. It is created once, before the database has any record.
    pub fn of(database: &Path, is_used: bool) -> Result<Self, SealError> {
        let path = database.with_extension("key");
        let error = |source| SealError::Key { path: path.display().to_string(), source };
        let random = SystemRandom::new();
        let key = match fs::read_to_string(&path) {
            Ok(text) => {
                hex::decode(text.trim()).map_err(|_| SealError::NotAKey { path: path.display().to_string() })?
            }
            Err(missing) if missing.kind() == io::ErrorKind::NotFound && !is_used => {
                let mut key = vec![0; KEY_BYTES];
                random.fill(&mut key).map_err(|_| SealError::Random)?;
                write_new(&path, &hex::encode(&key)).map_err(error)?;
                key
            }
            Err(other) => return Err(error(other)),
        };
        let key =
            UnboundKey::new(&AES_256_GCM, &key).map_err(|_| SealError::NotAKey { path: path.display().to_string() })?;
        Ok(Self { key: LessSafeKey::new(key), path, random })
    }

    /// A nonce, then the encrypted value and payload, bound to the record's name.
    pub fn close(&self, kind: &str, id: &str, value: &str, payload: &[u8]) -> Result<Vec<u8>, SealError> {
        // A random nonce: far fewer than 2^32 records are ever written with one key.
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| SealError::Random)?;
        let length = u32::try_from(value.len()).unwrap_or_else(|_| unreachable!("SQLite takes no rows of 4 GiB"));
        let mut sealed = Vec::with_capacity(NONCE_LEN + 4 + value.len() + payload.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(&nonce);
        for part in [&length.to_le_bytes(), value.as_bytes(), payload] {
            sealed.extend_from_slice(part);
        }
        let (_, open) = sealed.split_at_mut(NONCE_LEN);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.key.seal_in_place_separate_tag(nonce, name(kind, id), open).map_err(|_| SealError::Random)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Decrypts the value and the payload that [`Self::close`] has encrypted for this record.
    pub fn open(&self, kind: &str, id: &str, mut sealed: Vec<u8>) -> Result<(String, Bytes), SealError> {
        let other =
            || SealError::OtherKey { path: self.path.display().to_string(), kind: kind.to_owned(), id: id.to_owned() };
        let (nonce, rest) = sealed.split_at_mut_checked(NONCE_LEN).ok_or_else(other)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| other())?;
        let opened = self.key.open_in_place(nonce, name(kind, id), rest).map_err(|_| other())?.len();
        let mut bytes = Bytes::from(sealed).slice(NONCE_LEN..NONCE_LEN + opened);
        let length = bytes.try_get_u32_le().map_err(|_| other())?;
        let length = usize::try_from(length).ok().filter(|length| *length <= bytes.len()).ok_or_else(other)?;
        let value = String::from_utf8(bytes.split_to(length).into()).map_err(|_| other())?;
        Ok((value, bytes))
    }
}

/// The name that an encrypted record is bound to, so that it cannot replace another one.
fn name(kind: &str, id: &str) -> Aad<Vec<u8>> {
    Aad::from([kind.as_bytes(), &[0], id.as_bytes()].concat())
}

/// Writes a private file atomically.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let partial = path.with_extension("key.partial");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    fs::File::open(path.parent().unwrap_or(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn record_decrypts_only_under_its_own_kind_and_id() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("state.db");
        let seal = Seal::of(&database, false).unwrap();
        for (value, payload) in [("", b"".as_slice()), ("{}", b"\0\xff"), (r#"{"a":"hunter2"}"#, &[7; 9_000])] {
            let sealed = seal.close("secret", "st-1", value, payload).unwrap();
            assert_ne!(seal.close("secret", "st-1", value, payload).unwrap(), sealed, "a nonce was used twice");
            let opened = Seal::of(&database, false).unwrap().open("secret", "st-1", sealed.clone()).unwrap();
            assert_eq!((opened.0.as_str(), opened.1.as_ref()), (value, payload));
            for (kind, id) in [("secret", "st-2"), ("dict", "st-1"), ("secretst", "-1")] {
                assert!(matches!(seal.open(kind, id, sealed.clone()), Err(SealError::OtherKey { .. })));
            }
            for end in [0, NONCE_LEN - 1, NONCE_LEN, sealed.len() - 1] {
                assert!(matches!(seal.open("secret", "st-1", sealed[..end].to_vec()), Err(SealError::OtherKey { .. })));
            }
        }
        let key = database.with_extension("key");
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn wrong_and_malformed_keys_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("state.db");
        let sealed = Seal::of(&database, false).unwrap().close("secret", "st-1", "{}", b"").unwrap();
        let key = database.with_extension("key");
        fs::remove_file(&key).unwrap();
        let refused = Seal::of(&database, false).unwrap().open("secret", "st-1", sealed);
        assert!(matches!(refused, Err(SealError::OtherKey { .. })));
        for bad in ["", "abc", &"ab".repeat(31), &"zz".repeat(32)] {
            fs::write(&key, bad).unwrap();
            assert!(matches!(Seal::of(&database, false), Err(SealError::NotAKey { .. })), "{bad:?}");
        }
        assert_eq!(fs::read_to_string(&key).unwrap(), "zz".repeat(32), "it is left as it is");
    }
}
