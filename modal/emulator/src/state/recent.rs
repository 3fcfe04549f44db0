//! Responses to requests that add or remove something, for clients that repeat them because the response was lost.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use modal_proto::QueueGetResponse;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::{State, own};
use crate::store::Record;

/// A client repeats a request within seconds.
const MAX_RESPONSES: usize = 1_000;
const MAX_BYTES: usize = 32 << 20;

/// The response to a request. It is stored with the request's changes, as it may be lost when the server is killed.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoredResponse {
    /// The key that all tries of the request share.
    key: String,
    /// Its place in the order of all responses.
    sequence: u64,
    #[serde(skip)]
    values: Vec<Bytes>,
}

impl Record for StoredResponse {
    const KIND: &'static str = "answer";
    fn id(&self) -> &str {
        &self.key
    }
    fn payload(&self) -> Bytes {
        QueueGetResponse { values: self.values.clone() }.encode_to_vec().into()
    }
    fn set_payload(&mut self, payload: Bytes) {
        // Encoded here before it was stored, so this succeeds.
        self.values = QueueGetResponse::decode(payload).unwrap_or_default().values;
    }
}

impl StoredResponse {
    fn size(&self) -> usize {
        self.values.iter().map(Bytes::len).sum()
    }
}

/// The last responses.
#[derive(Debug, Default)]
pub struct Recent {
    responses: BTreeMap<u64, StoredResponse>,
    by_key: HashMap<String, u64>,
    bytes: usize,
}

impl State {
    /// The response to an earlier try of a request, if there was one.
    pub fn stored_response(&self, key: Option<&str>) -> Option<&Vec<Bytes>> {
        let sequence = self.recent.by_key.get(key?)?;
        self.recent.responses.get(sequence).map(|response| &response.values)
    }

    /// Remembers the response to a request.
    pub fn remember_response(&mut self, key: Option<&str>, values: Vec<Bytes>) {
        let Some(key) = key else { return };
        let sequence = self.recent.responses.last_key_value().map_or(0, |(last, _)| last + 1);
        let response = StoredResponse { key: key.to_owned(), sequence, values: values.iter().map(own).collect() };
        self.save(&response);
        self.restore_response(response);
        while self.recent.responses.len() > MAX_RESPONSES || self.recent.bytes > MAX_BYTES {
            let Some((_, oldest)) = self.recent.responses.pop_first() else { break };
            self.recent.bytes -= oldest.size();
            self.recent.by_key.remove(&oldest.key);
            self.forget::<StoredResponse>(&oldest.key);
        }
    }

    /// Restores a response that was stored.
    pub(super) fn restore_response(&mut self, response: StoredResponse) {
        self.recent.bytes += response.size();
        self.recent.by_key.insert(response.key.clone(), response.sequence);
        self.recent.responses.insert(response.sequence, response);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{state::Now, store::StoredRow};

    #[test]
    fn responses_survive_a_restart_and_the_oldest_are_dropped() {
        let mut state = State::default();
        for n in 0..=MAX_RESPONSES {
            state.remember_response(Some(&format!("key-{n}")), vec![n.to_string().into()]);
        }
        state.remember_response(None, vec!["no key".into()]);
        assert!(state.stored_response(Some("key-0")).is_none());
        assert!(state.stored_response(Some("key-1")).is_some() && state.stored_response(Some("other")).is_none());
        state.remember_response(Some("large"), vec![vec![0; MAX_BYTES].into()]);
        assert!(state.stored_response(Some("key-1")).is_none(), "it is bounded by bytes");
        state.remember_response(Some("larger"), vec![vec![0; MAX_BYTES + 1].into()]);
        assert!(state.stored_response(Some("larger")).is_none(), "it alone is too much");

        let mut state = State::default();
        state.remember_response(Some("kept"), vec!["a".into(), "b".into()]);
        let rows = state.take_changes().into_iter().filter_map(StoredRow::after).collect();
        let mut state = State::load(rows, Now::read()).unwrap();
        assert_eq!(state.stored_response(Some("kept")).unwrap(), &["a", "b"]);
        state.remember_response(Some("next"), Vec::new());
        assert!(
            state.stored_response(Some("kept")).is_some() && state.stored_response(Some("next")).unwrap().is_empty()
        );
    }
}
