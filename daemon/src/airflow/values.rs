//! The values of an environment that DAG files read during import: Variables, Connections and environment variables.
//! Only the scheduler knows them; here they are kept in memory only, for a short time.

use std::{collections::HashMap, sync::Arc, time::Duration};

use airflow_serverless_api::environment::EnvironmentName;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Deployed;
use crate::error::{Result, Subject};

/// How long values are cached, so that the files of one upload share one request.
const CACHE_TTL: Duration = Duration::from_secs(5);

/// Cached values of each environment.
#[derive(Default)]
pub(super) struct Values(Mutex<Known>);

#[derive(Default)]
struct Known {
    by_environment: HashMap<EnvironmentName, (Instant, Arc<Value>)>,
    /// Incremented on each change, so that the response to an earlier request is not cached.
    changes: u64,
}

impl Values {
    pub fn cached(&self, environment: &EnvironmentName) -> Option<Arc<Value>> {
        let mut known = self.lock();
        known.by_environment.retain(|_, (at, _)| at.elapsed() < CACHE_TTL);
        known.by_environment.get(environment).map(|(_, values)| values.clone())
    }

    /// Invalidates the cache. Call it after every write, even a failed one.
    pub fn invalidate(&self, environment: &EnvironmentName) {
        let mut known = self.lock();
        known.changes += 1;
        known.by_environment.remove(environment);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock()
    }
}

impl Deployed {
    /// Returns the current values.
    pub(super) async fn values(&self) -> Result<Arc<Value>> {
        let cache = &self.airflow.values;
        let changes = cache.lock().changes;
        let values: Value = self.command((Subject::Dag, "get_values"), json!({})).await?;
        let values = Arc::new(values);
        let mut known = cache.lock();
        if known.changes == changes {
            known.by_environment.insert(self.name().clone(), (Instant::now(), values.clone()));
        }
        Ok(values)
    }
}
