//! One lock per environment, so that slow work on one does not block another.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use airflow_serverless_api::environment::EnvironmentName;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Clones share the locks.
#[derive(Clone, Default)]
pub struct Locks(Arc<parking_lot::Mutex<HashMap<EnvironmentName, Weak<Mutex<()>>>>>);

impl Locks {
    /// Waits for the lock of an environment.
    pub async fn lock(&self, environment: &EnvironmentName) -> OwnedMutexGuard<()> {
        self.of(environment).lock_owned().await
    }

    fn of(&self, environment: &EnvironmentName) -> Arc<Mutex<()>> {
        let mut locks = self.0.lock();
        if let Some(lock) = locks.get(environment).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        locks.insert(environment.clone(), Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn each_environment_has_its_own_lock() {
        let (locks, name) = (Locks::default(), |name: &str| name.parse::<EnvironmentName>().expect("a name"));
        let held = locks.lock(&name("dev")).await;
        assert!(locks.lock(&name("dev")).now_or_never().is_none());
        assert!(locks.lock(&name("prod")).now_or_never().is_some());
        drop(held);
        assert!(locks.lock(&name("dev")).now_or_never().is_some());
        assert_eq!(locks.0.lock().len(), 1, "those that nobody holds are forgotten");
    }
}
