//! Answers to requests that took something away or added it, for clients that repeat them because the answer got lost.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use modal_proto::QueueGetResponse;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::{State, own};
use crate::store::Record;

/// A client repeats a request within seconds.
const MAX_ANSWERS: usize = 1_000;
const MAX_BYTES: usize = 32 << 20;

/// What a request was answered. It is stored with what the request did, as the answer may get lost with the server.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The key that all tries of the request share.
    key: String,
    /// Its place in the order of all answers.
    sequence: u64,
    #[serde(skip)]
    values: Vec<Bytes>,
}

impl Record for Answer {
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

impl Answer {
    fn size(&self) -> usize {
        self.values.iter().map(Bytes::len).sum()
    }
}

/// The last answers.
#[derive(Debug, Default)]
pub struct Recent {
    answers: BTreeMap<u64, Answer>,
    by_key: HashMap<String, u64>,
    bytes: usize,
}

impl State {
    /// What an earlier try of a request was answered.
    pub fn answered(&self, key: Option<&str>) -> Option<&Vec<Bytes>> {
        let sequence = self.recent.by_key.get(key?)?;
        self.recent.answers.get(sequence).map(|answer| &answer.values)
    }

    /// Remembers what a request is answered.
    pub fn remember(&mut self, key: Option<&str>, values: Vec<Bytes>) {
        let Some(key) = key else { return };
        let sequence = self.recent.answers.last_key_value().map_or(0, |(last, _)| last + 1);
        let answer = Answer { key: key.to_owned(), sequence, values: values.iter().map(own).collect() };
        self.save(&answer);
        self.restore_answer(answer);
        while self.recent.answers.len() > MAX_ANSWERS || self.recent.bytes > MAX_BYTES {
            let Some((_, oldest)) = self.recent.answers.pop_first() else { break };
            self.recent.bytes -= oldest.size();
            self.recent.by_key.remove(&oldest.key);
            self.forget::<Answer>(&oldest.key);
        }
    }

    /// Takes back an answer that was stored.
    pub(super) fn restore_answer(&mut self, answer: Answer) {
        self.recent.bytes += answer.size();
        self.recent.by_key.insert(answer.key.clone(), answer.sequence);
        self.recent.answers.insert(answer.sequence, answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{state::Now, store::StoredRow};

    #[test]
    fn answers_outlive_a_restart_and_the_oldest_go() {
        let mut state = State::default();
        for n in 0..=MAX_ANSWERS {
            state.remember(Some(&format!("key-{n}")), vec![n.to_string().into()]);
        }
        state.remember(None, vec!["no key".into()]);
        assert!(state.answered(Some("key-0")).is_none());
        assert!(state.answered(Some("key-1")).is_some() && state.answered(Some("other")).is_none());
        state.remember(Some("large"), vec![vec![0; MAX_BYTES].into()]);
        assert!(state.answered(Some("key-1")).is_none(), "it is bounded by bytes");
        state.remember(Some("larger"), vec![vec![0; MAX_BYTES + 1].into()]);
        assert!(state.answered(Some("larger")).is_none(), "it alone is too much");

        let mut state = State::default();
        state.remember(Some("kept"), vec!["a".into(), "b".into()]);
        let rows = state.take_changes().into_iter().filter_map(StoredRow::after).collect();
        let mut state = State::load(rows, Now::read()).unwrap();
        assert_eq!(state.answered(Some("kept")).unwrap(), &["a", "b"]);
        state.remember(Some("next"), Vec::new());
        assert!(state.answered(Some("kept")).is_some() && state.answered(Some("next")).unwrap().is_empty());
    }
}
