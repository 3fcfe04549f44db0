//! Faults on demand: what tests want to go wrong.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize};

/// Something that is to go wrong with a named RPC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Such as `FunctionPutOutputs`.
    pub rpc: String,
    /// What happens.
    #[serde(flatten)]
    pub action: Action,
    /// Whether it happens before the request is carried out, or in place of the answer.
    #[serde(default)]
    pub when: When,
    /// How many requests are spared first.
    #[serde(default)]
    pub skip: u32,
    /// How many requests it happens to.
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
    /// The request is not carried out, unless it is only delayed.
    #[default]
    Before,
    /// The request is carried out; the answer is delayed or lost.
    After,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "action")]
pub enum Action {
    /// It takes longer.
    Delay { seconds: f64 },
    /// It fails with a gRPC status, by its number.
    Fail {
        code: i32,
        #[serde(default)]
        message: String,
    },
    /// The connection is cut.
    Disconnect,
    /// The container that asks is killed.
    Kill,
    /// The container that asks is told to end, and its inputs go to another one.
    Preempt,
}

/// The faults that are still to happen.
#[derive(Default)]
pub struct Faults {
    /// So that a server without faults does not look for them.
    any: AtomicBool,
    faults: Mutex<Vec<Fault>>,
}

impl Faults {
    /// All of them.
    pub fn list(&self) -> Vec<Fault> {
        self.lock().clone()
    }

    /// Sets all of them.
    pub fn replace(&self, faults: Vec<Fault>) {
        self.any.store(!faults.is_empty(), Ordering::Release);
        *self.lock() = faults;
    }

    /// What is to happen to this request.
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
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_happens_as_often_as_it_says() {
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
