//! Faults that tests inject.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

/// A fault to inject into calls of an RPC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// The RPC's name, such as `FunctionPutOutputs`.
    pub rpc: String,
    /// What happens.
    #[serde(flatten)]
    pub action: Action,
    /// Whether it happens before the request is processed, or to its response.
    #[serde(default)]
    pub when: When,
    /// How many requests are skipped first.
    #[serde(default)]
    pub skip: u32,
    /// How many requests it affects.
    #[serde(default = "once")]
    pub times: u32,
}

fn once() -> u32 {
    1
}

/// When a fault happens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// The request is not processed, unless it is only delayed.
    #[default]
    Before,
    /// The request is processed; the response is delayed or lost.
    After,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "action")]
pub enum Action {
    /// The request takes longer.
    Delay { seconds: f64 },
    /// The request fails with this gRPC status code.
    Fail {
        code: i32,
        #[serde(default)]
        message: String,
    },
    /// The connection is closed.
    Disconnect,
    /// The calling container is killed.
    Kill,
    /// The calling container is preempted, and its inputs go to another one.
    Preempt,
}

/// The pending faults.
#[derive(Default)]
pub struct Faults {
    /// Whether there are any. It saves servers without faults the lock.
    any: AtomicBool,
    faults: Mutex<Vec<Fault>>,
}

impl Faults {
    /// All pending faults.
    pub fn list(&self) -> Vec<Fault> {
        self.lock().clone()
    }

    /// Replaces all pending faults.
    pub fn replace(&self, faults: Vec<Fault>) {
        self.any.store(!faults.is_empty(), Ordering::Release);
        *self.lock() = faults;
    }

    /// The fault to inject into this request, if any. It counts as used.
    pub fn take(&self, rpc: &str) -> Option<(When, Action)> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut faults = self.lock();
        let fault = faults.iter_mut().find(|fault| fault.rpc == rpc)?;
        if fault.skip > 0 {
            fault.skip -= 1;
            return None;
        }
        let taken = (fault.when, fault.action.clone());
        fault.times = fault.times.saturating_sub(1);
        faults.retain(|fault| fault.times > 0);
        self.any.store(!faults.is_empty(), Ordering::Release);
        Some(taken)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.faults.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_is_injected_skip_and_times_as_set() {
        let faults = Faults::default();
        let text = r#"[{"rpc": "A", "action": "fail", "code": 14, "skip": 1, "times": 2},
                       {"rpc": "B", "action": "disconnect", "when": "after"}]"#;
        faults.replace(serde_json::from_str(text).unwrap());
        let fail = || Some((When::Before, Action::Fail { code: 14, message: String::new() }));
        assert_eq!(faults.take("A"), None);
        assert_eq!(faults.take("A"), fail());
        assert_eq!(faults.take("C"), None);
        assert_eq!(faults.take("B"), Some((When::After, Action::Disconnect)));
        assert_eq!(faults.take("A"), fail());
        assert_eq!(faults.take("A"), None);
        assert_eq!(faults.list(), []);
    }
}
