//! Local Modal's records, read from outside: decrypts its database with the key next to it.

use std::{fs, path::Path};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde_json::Value;

use crate::{databases::rows, text};

/// Returns the records of a kind in the home of an installation, as JSON, without their payloads.
#[track_caller]
pub fn records(home: &Path, kind: &str) -> Vec<Value> {
    let database = home.join("data/modal/state.db");
    let key = bytes(fs::read_to_string(database.with_extension("key")).expect("the key").trim());
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("a key"));
    let sealed = rows(&database, &format!("SELECT id, hex(sealed) FROM record WHERE kind = '{kind}' ORDER BY id"));
    let opened = sealed.iter().map(|row| {
        let mut sealed = bytes(text(&row[1]));
        let (nonce, rest) = sealed.split_at_mut(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).expect("a nonce");
        let name = Aad::from(format!("{kind}\0{}", text(&row[0])));
        let opened = key.open_in_place(nonce, name, rest).expect("a record of this key");
        let (length, rest) = opened.split_first_chunk().expect("a length");
        let length = usize::try_from(u32::from_le_bytes(*length)).expect("a length");
        serde_json::from_slice(&rest[..length]).expect("JSON")
    });
    opened.collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(digit).collect()
}
