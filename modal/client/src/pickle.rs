//! Python values on the wire: plain types only, as pickles.

use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Error, Result};

/// Any value made of dicts, lists, text, numbers, booleans and None.
pub use serde_pickle::Value;

/// The pickle of a Dict key, byte for byte as the SDK writes it: Modal compares keys as bytes.
pub fn key(text: &str) -> Vec<u8> {
    const SHORT: usize = 256;
    let mut body = Vec::with_capacity(text.len() + 8);
    if text.len() < SHORT {
        body.extend([0x8c, text.len() as u8]);
    } else {
        body.push(b'X');
        body.extend((text.len() as u32).to_le_bytes());
    }
    body.extend(text.as_bytes());
    body.extend([0x94, b'.']);
    let mut pickle = vec![0x80, 4, 0x95];
    pickle.extend((body.len() as u64).to_le_bytes());
    pickle.extend(body);
    pickle
}

/// Pickles a value; `what` names it in errors.
///
/// # Errors
/// [`Error::Pickle`] if the value has no Python counterpart.
pub fn dumps<T: Serialize>(what: &str, value: &T) -> Result<Vec<u8>> {
    serde_pickle::to_vec(value, serde_pickle::SerOptions::new())
        .map_err(|source| Error::Pickle { what: what.to_owned(), source })
}

/// Reads a pickled value; `what` names it in errors.
///
/// # Errors
/// [`Error::Unpickle`] if the bytes are not a pickle of plain types, or the value is not a `T`.
pub fn loads<T: DeserializeOwned>(what: &str, pickle: &[u8]) -> Result<T> {
    serde_pickle::from_slice(pickle, serde_pickle::DeOptions::new())
        .map_err(|source| Error::Unpickle { what: what.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_pickle_matches_the_sdk() {
        // python: cloudpickle.dumps("wake", protocol=4)
        assert_eq!(key("wake"), b"\x80\x04\x95\x08\x00\x00\x00\x00\x00\x00\x00\x8c\x04wake\x94.");
        let long = "k".repeat(300);
        assert_eq!(loads::<String>("key", &key(&long)).expect("a valid pickle"), long);
    }

    #[test]
    fn values_round_trip_through_pickle() {
        let value = serde_json::json!({"a": [1, 2.5, null, true], "b": "ü"});
        let pickle = dumps("value", &value).expect("pickles");
        assert_eq!(loads::<serde_json::Value>("value", &pickle).expect("unpickles"), value);
    }
}
