//! A cache of environments: nearly each request reads one, and few change one.

use std::{collections::HashMap, sync::Arc};

use airflow_serverless_api::environment::{Environment, EnvironmentName};
use parking_lot::{Mutex, MutexGuard};

/// Environments read since the last change. Never stale, as the registry has no other writer.
#[derive(Clone, Default)]
pub struct Recent(Arc<Mutex<Read>>);

#[derive(Default)]
struct Read {
    changes: u64,
    environments: HashMap<EnvironmentName, Environment>,
}

/// The number of changes at the time of a read.
#[derive(Clone, Copy)]
pub struct Moment(u64);

impl Recent {
    fn lock(&self) -> MutexGuard<'_, Read> {
        self.0.lock()
    }

    /// Returns the environment, or the moment to pass to [`Recent::keep`] after reading it.
    pub fn get(&self, name: &EnvironmentName) -> Result<Environment, Moment> {
        let read = self.lock();
        read.environments.get(name).cloned().ok_or(Moment(read.changes))
    }

    /// Caches what was read since that moment, unless something has changed.
    pub fn keep(&self, environment: &Environment, since: Moment) {
        let mut read = self.lock();
        if read.changes == since.0 {
            read.environments.insert(environment.name.clone(), environment.clone());
        }
    }

    /// Invalidates the cache after a change.
    pub fn forget(&self) {
        let mut read = self.lock();
        read.changes += 1;
        read.environments.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    /// Creates a registry; returns the name of the environment in it.
    async fn registry() -> (tempfile::TempDir, Store, EnvironmentName) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("registry.db");
        std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/registry-v1.db"), &path).expect("a copy");
        let store = Store::open(&path).await.expect("the registry");
        (folder, store, "dev".parse().expect("a name"))
    }

    #[tokio::test]
    async fn value_read_before_a_change_is_not_cached() {
        let (_folder, store, name) = registry().await;
        let dev = store.environment(&name).await.expect("an answer").expect("an environment");
        let recent = Recent::default();
        let Err(moment) = recent.get(&name) else { panic!("it was never read") };
        recent.forget();
        recent.keep(&dev, moment);
        let Err(moment) = recent.get(&name) else { panic!("it has changed since") };
        recent.keep(&dev, moment);
        assert!(recent.get(&name).is_ok_and(|kept| kept == dev));
    }

    #[tokio::test]
    async fn changes_invalidate_the_cached_environment() {
        let (_folder, store, name) = registry().await;
        for _ in 0..3 {
            let before = store.environment(&name).await.expect("an answer").expect("an environment");
            assert_eq!(store.outdate_environments("others", chrono::Utc::now()).await.expect("a change"), 1);
            let after = store.environment(&name).await.expect("an answer").expect("an environment");
            assert_eq!(after.generation, before.generation + 1);
            let reached = crate::store::Outcome::Reached { functions: "these" };
            store
                .observe_environment(&name, after.generation, (reached, None), chrono::Utc::now())
                .await
                .expect("a change");
        }
    }
}
