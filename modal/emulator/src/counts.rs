//! Counters of RPCs.

use std::collections::{BTreeMap, HashMap};

use parking_lot::{Mutex, MutexGuard};

/// More than Modal has RPCs. A client that makes up names must not fill the memory.
const MAX_NAMES: usize = 1_000;

/// How often each RPC was called since the server started, including those that are not implemented.
#[derive(Default)]
pub struct Counts(Mutex<HashMap<String, u64>>);

impl Counts {
    /// Counts one request.
    pub fn add(&self, rpc: &str) {
        let mut counts = self.lock();
        if let Some(count) = counts.get_mut(rpc) {
            *count += 1;
        } else if counts.len() < MAX_NAMES {
            counts.insert(rpc.to_owned(), 1);
        }
    }

    /// All counts by name.
    pub fn list(&self) -> BTreeMap<String, u64> {
        self.lock().iter().map(|(rpc, count)| (rpc.clone(), *count)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_counted_names_is_limited() {
        let counts = Counts::default();
        for n in 0..2 * MAX_NAMES {
            counts.add(&n.to_string());
            counts.add("0");
        }
        assert_eq!(counts.list().len(), MAX_NAMES);
        assert_eq!(counts.list()["0"], 2 * MAX_NAMES as u64 + 1);
    }
}
