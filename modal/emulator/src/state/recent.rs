//! Answers to requests that took something away or added it, for clients that repeat them because the answer got lost.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

/// A client repeats a request within seconds.
const MAX_ANSWERS: usize = 1_000;
const MAX_BYTES: usize = 32 << 20;

/// The last answers, by the key that all tries of one request share. They do not outlive the process.
#[derive(Debug, Default)]
pub struct Recent {
    answers: HashMap<String, Vec<Bytes>>,
    oldest_first: VecDeque<String>,
    bytes: usize,
}

impl Recent {
    /// What an earlier try of a request was answered.
    pub fn get(&self, key: Option<&str>) -> Option<&Vec<Bytes>> {
        self.answers.get(key?)
    }

    /// Remembers an answer.
    pub fn insert(&mut self, key: Option<&str>, answer: Vec<Bytes>) {
        let Some(key) = key else { return };
        self.bytes += size(&answer);
        self.oldest_first.push_back(key.to_owned());
        self.answers.insert(key.to_owned(), answer);
        while self.oldest_first.len() > MAX_ANSWERS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.oldest_first.pop_front() else { break };
            self.bytes -= self.answers.remove(&oldest).map_or(0, |answer| size(&answer));
        }
    }
}

fn size(answer: &[Bytes]) -> usize {
    answer.iter().map(Bytes::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_request_finds_its_answer_while_it_is_recent() {
        let mut recent = Recent::default();
        recent.insert(Some("a"), vec![Bytes::from_static(b"x")]);
        recent.insert(None, vec![Bytes::from_static(b"y")]);
        assert_eq!(recent.get(Some("a")).unwrap()[0], "x");
        assert!(recent.get(Some("b")).is_none() && recent.get(None).is_none());
        recent.insert(Some("large"), vec![vec![0; MAX_BYTES].into()]);
        assert!(recent.get(Some("a")).is_none(), "it is bounded by bytes");
        (0..=MAX_ANSWERS).for_each(|n| recent.insert(Some(&n.to_string()), Vec::new()));
        assert!(recent.get(Some("0")).is_none() && recent.get(Some("1")).is_some(), "it is bounded by number");
    }
}
