//! The plugins on the Volumes of environments; DAG files are validated together with them.

use std::{
    collections::HashMap,
    path::{Component, Path},
    sync::Arc,
};

use airflow_serverless_api::environment::{Environment, EnvironmentName};
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use modal_client::{Entry, EntryKind};
use parking_lot::{Mutex, MutexGuard};

use super::{
    Deployed,
    dag_files::{DagFolder, PLUGINS, on_volume},
};
use crate::error::Result;

/// Bytes of plugins cached per environment. Plugins beyond that are read for each upload.
const MOST_BYTES: u64 = 16 << 20;
const READS_AT_A_TIME: usize = 8;
/// Listings have a resolution of one second: a second change within that second goes unnoticed.
const SETTLED_SECONDS: i64 = 2;

/// Cached plugins, by environment.
#[derive(Default)]
pub(super) struct PluginCache(Mutex<HashMap<EnvironmentName, Kept>>);

#[derive(Default)]
struct Kept {
    /// Creation time of the environment; tells it from a later one of the same name.
    created_at: DateTime<Utc>,
    /// By path in the DAG folder.
    plugins: Arc<HashMap<String, Plugin>>,
}

#[derive(Clone)]
struct Plugin {
    size: u64,
    /// Seconds since the epoch.
    modified: u64,
    content: Arc<Vec<u8>>,
}

impl Plugin {
    fn is_as_listed(&self, entry: &Entry) -> bool {
        (self.size, self.modified) == (entry.size, entry.modified)
    }
}

impl PluginCache {
    fn lock(&self) -> MutexGuard<'_, HashMap<EnvironmentName, Kept>> {
        self.0.lock()
    }

    fn of(&self, environment: &Environment) -> Arc<HashMap<String, Plugin>> {
        let kept = self.lock();
        let kept = kept.get(&environment.name).filter(|kept| kept.created_at == environment.created_at);
        kept.map(|kept| kept.plugins.clone()).unwrap_or_default()
    }

    /// Replaces the cached plugins.
    fn keep(&self, environment: &Environment, plugins: HashMap<String, Plugin>) {
        let kept = Kept { created_at: environment.created_at, plugins: Arc::new(plugins) };
        self.lock().insert(environment.name.clone(), kept);
    }

    /// Forgets environments that no longer exist.
    pub fn retain(&self, is_there: impl Fn(&EnvironmentName) -> bool) {
        self.lock().retain(|name, _| is_there(name));
    }
}

impl Deployed {
    /// Returns the content of each plugin file, by path in the DAG folder. Reads only changed files.
    pub(super) async fn plugins(&self, folder: &DagFolder) -> Result<Vec<(String, Arc<Vec<u8>>)>> {
        let is_plugin =
            |path: &str, entry: &Entry| path.starts_with(PLUGINS) && entry.kind == EntryKind::File && is_plain(path);
        let listed = folder.files().filter(|(path, entry)| is_plugin(path, entry));
        let listed: Vec<(String, Entry)> = listed.map(|(path, entry)| (path.to_owned(), entry.clone())).collect();
        let known = self.airflow.plugins.of(&self.environment);
        let volume = self.volume().await?;
        let read = stream::iter(listed).map(|(path, entry)| {
            let known = known.get(&path).filter(|plugin| plugin.is_as_listed(&entry)).cloned();
            let volume = volume.clone();
            async move {
                if let Some(plugin) = known {
                    return Ok(Some((path, plugin)));
                }
                let content = volume.read(&on_volume(&path)).await?.map(Arc::new);
                let plugin = |content| Plugin { size: entry.size, modified: entry.modified, content };
                Ok::<_, modal_client::Error>(content.map(|content| (path, plugin(content))))
            }
        });
        let read: Vec<Option<(String, Plugin)>> = read.buffered(READS_AT_A_TIME).try_collect().await?;
        let read: Vec<(String, Plugin)> = read.into_iter().flatten().collect();
        self.airflow.plugins.keep(&self.environment, kept(&read, folder.listed_at));
        Ok(read.into_iter().map(|(path, plugin)| (path, plugin.content)).collect())
    }
}

/// Selects the plugins to cache: as many as fit, of those whose changes would be noticed.
fn kept(plugins: &[(String, Plugin)], listed_at: DateTime<Utc>) -> HashMap<String, Plugin> {
    let is_settled = |plugin: &Plugin| {
        // A different size means that the file changed between the listing and the read.
        plugin.modified.cast_signed() + SETTLED_SECONDS <= listed_at.timestamp()
            && plugin.size == plugin.content.len() as u64
    };
    let mut bytes = 0;
    let settled = plugins.iter().filter(|(_, plugin)| is_settled(plugin));
    let fitting = settled.take_while(|(_, plugin)| {
        bytes += plugin.size;
        bytes <= MOST_BYTES
    });
    fitting.cloned().collect()
}

/// Whether a path stays below its root.
fn is_plain(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_changed_and_large_plugins_are_not_cached() {
        let at = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let plugin = |path: &str, age: u64, size: u64| {
            let modified = at.timestamp().cast_unsigned() - age;
            (path.to_owned(), Plugin { size, modified, content: Arc::new(vec![0; size as usize]) })
        };
        let mut changed = plugin("changed", 9, 1);
        changed.1.size = 2;
        let plugins = [plugin("old", 2, 1), plugin("new", 1, 1), changed, plugin("large", 9, MOST_BYTES)];
        let kept = kept(&plugins, at);
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["old"]);
    }
}
