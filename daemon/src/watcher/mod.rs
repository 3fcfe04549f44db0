//! Watches: sync folders to the Volumes of environments.
//!
//! An event only wakes a [task](task), which runs a [round](round): a [scan](scanned_folder) of the whole folder, a
//! [plan](plan) of the differences to the Volume, a [check](check) of the affected files, and one [upload](upload) of
//! all changes that are not [quarantined](quarantine). A restart, a retry and a burst of saves all lead to the same
//! round.

mod check;
mod debounce;
mod directory_watcher;
mod imports;
mod links;
mod local;
mod plan;
mod planned_changes;
mod quarantine;
mod round;
mod rules;
mod scan;
mod scanned_folder;
mod status;
mod task;
mod upload;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use airflow_serverless_api::{
    home::Home,
    problem::Fault,
    watch::{CreateWatch, ListWatches, VolumeFiles, Watch, WatchList, WatchRemoval, WatchState},
};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{
    directory_watcher::DirectoryWatcher,
    round::{Memory, Round},
    rules::{Patterns, Rules},
    scan::{Nobody, normal, scan},
    status::{Shared, Status, describe, shared_dags},
    task::{Running, Task},
};
use crate::{
    airflow::{Airflow, Deployed},
    base::Base,
    error::{Error, Result},
    model::Name,
    registry::Registry,
    report::chain,
    settings,
    store::WatchRow,
};

/// Each watch takes a thread and one of the user's inotify instances, of which there are 128 by default.
const MOST_WATCHES: usize = 100;

/// Longest wait for the listing of a Volume when a watch is shown.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// All watches of the daemon.
pub struct Watchers {
    base: Base,
    registry: Registry,
    airflow: Arc<Airflow>,
    settings: settings::Watch,
    /// Folders that the daemon writes to: [`Rules::own`].
    own: Arc<[PathBuf]>,
    running: Mutex<HashMap<Uuid, Running>>,
    stop: CancellationToken,
}

impl Watchers {
    pub fn new(
        base: Base,
        registry: Registry,
        airflow: Arc<Airflow>,
        (settings, home): (settings::Watch, &Home),
        stop: CancellationToken,
    ) -> Self {
        let own = [&home.data, &home.state, &home.cache, &home.runtime].map(|folder| real(folder)).into();
        Self { base, registry, airflow, settings, own, running: Mutex::default(), stop }
    }

    /// Starts all recorded watches.
    pub async fn start(&self) -> Result<()> {
        let mut running = self.running.lock().await;
        for row in self.base.store.watches().await? {
            let (id, directory) = (row.id, row.directory.clone());
            match self.begin(row) {
                Ok(begun) => drop(running.insert(id, begun)),
                Err(error) => tracing::error!(watch.directory = directory, error = chain(&error), "it is not watched"),
            }
        }
        Ok(())
    }

    /// Stops all watches; they resume at the daemon's next start.
    pub async fn stop(&self) {
        let running: Vec<_> = self.running.lock().await.drain().collect();
        for (_, running) in running {
            running.stop().await;
        }
    }

    /// Creates a watch; returns whether it is new. A watch that exists with the same options is returned as it is.
    pub async fn create_watch(&self, request: CreateWatch) -> Result<(bool, Watch)> {
        self.registry.wanted_environment(&request.environment).await?;
        let directory = self.directory(&request.directory)?;
        let invalid = |error: ignore::Error| Error::InvalidWatch(vec![Fault::new("patterns", error.to_string())]);
        let rules = Rules { patterns: Patterns::new(&request.patterns).map_err(invalid)?, own: self.own.clone() };
        // Held to the end, so that only one of two concurrent requests for a folder creates a watch.
        let mut running = self.running.lock().await;
        // Drops watches whose environments are gone.
        running.retain(|_, running| !running.task.is_finished());
        let rows = self.base.store.watches().await?;
        for row in rows.iter().filter(|row| row.environment == request.environment) {
            if Path::new(&row.directory) == directory {
                if (row.deletes, &row.patterns) != (request.delete, &request.patterns) {
                    return Err(Error::WatchDiffers(row.directory.clone()));
                }
                let shared = match running.get(&row.id) {
                    Some(running) => running.shared.clone(),
                    None => self.begin_among(&mut running, row.clone())?,
                };
                drop(running);
                return Ok((false, self.describe(row.clone(), Some(shared)).await));
            }
            let (known, new) = (real(Path::new(&row.directory)), real(&directory));
            if known.starts_with(&new) || new.starts_with(&known) {
                return Err(Error::WatchOverlaps(directory.display().to_string(), row.directory.clone()));
            }
        }
        if rows.len() >= MOST_WATCHES {
            return Err(Error::TooManyWatches(MOST_WATCHES));
        }
        let row = WatchRow {
            id: Uuid::now_v7(),
            environment: request.environment,
            directory: directory.display().to_string(),
            deletes: request.delete,
            patterns: request.patterns,
            identity: None,
            uploads: 0,
            synced_at: None,
            created_at: self.base.now(),
        };
        self.refuse_conflicts(&row, &directory, rules).await?;
        if let Err(error) = self.base.store.insert_watch(&row).await {
            // The environment may have been deleted in the meantime.
            self.registry.wanted_environment(&row.environment).await?;
            return Err(error.into());
        }
        let shared = self.begin_among(&mut running, row.clone())?;
        drop(running);
        Ok((true, self.describe(row, Some(shared)).await))
    }

    pub async fn list_watches(&self, query: &ListWatches) -> Result<WatchList> {
        if let Some(environment) = &query.environment {
            self.registry.environment(environment).await?;
        }
        let is_wanted =
            |row: &WatchRow| query.environment.as_ref().is_none_or(|environment| *environment == row.environment);
        let rows = self.base.store.watches().await?.into_iter().filter(is_wanted);
        let watches = futures::future::join_all(rows.map(|row| self.watch_of(row))).await;
        let total_entries = watches.len() as u64;
        Ok(WatchList { watches, total_entries })
    }

    pub async fn watch(&self, id: Uuid) -> Result<Watch> {
        let row = self.base.store.watch(id).await?.ok_or(Error::WatchNotFound(id))?;
        Ok(self.watch_of(row).await)
    }

    /// Removes a watch. Uploaded files stay on the Volume.
    pub async fn delete_watch(&self, id: Uuid) -> Result<WatchRemoval> {
        let mut all = self.running.lock().await;
        let row = self.base.store.watch(id).await?.ok_or(Error::WatchNotFound(id))?;
        if let Some(running) = all.remove(&id) {
            running.stop().await;
        }
        let files_kept = match self.base.store.delete_watch(id).await {
            Ok(files_kept) => files_kept,
            Err(error) => {
                self.begin_among(&mut all, row)?;
                return Err(error.into());
            }
        };
        Ok(WatchRemoval { id, environment: row.environment, directory: row.directory, files_kept })
    }

    /// Starts a watch; returns its shared status.
    fn begin_among(&self, running: &mut HashMap<Uuid, Running>, row: WatchRow) -> Result<Arc<Shared>> {
        let id = row.id;
        let begun = self.begin(row)?;
        let shared = begun.shared.clone();
        running.insert(id, begun);
        Ok(shared)
    }

    fn begin(&self, row: WatchRow) -> Result<Running> {
        let (changes, receiver) = watch::channel(Instant::now());
        let root = PathBuf::from(&row.directory);
        let invalid = |error: ignore::Error| Error::InvalidWatch(vec![Fault::new("patterns", error.to_string())]);
        let shared = Arc::new(Shared::new(&row));
        let round = Round {
            store: self.base.store.clone(),
            airflow: self.airflow.clone(),
            clock: self.base.clock,
            rules: Rules { patterns: Patterns::new(&row.patterns).map_err(invalid)?, own: self.own.clone() },
            directory: Arc::new(parking_lot::Mutex::new(DirectoryWatcher::new(changes, root.clone()))),
            shared: shared.clone(),
            memory: Memory::default(),
            row,
            root,
        };
        let environments = self.base.events.changes();
        let task = Task {
            round,
            changes: receiver,
            environments,
            settings: self.settings,
            failures: 0,
            reported: WatchState::InSync,
        };
        let cancel = self.stop.child_token();
        let task = tokio::spawn(task.run(cancel.clone()));
        Ok(Running { shared, cancel, task })
    }

    async fn watch_of(&self, row: WatchRow) -> Watch {
        let shared = self.running.lock().await.get(&row.id).map(|running| running.shared.clone());
        self.describe(row, shared).await
    }

    async fn describe(&self, row: WatchRow, shared: Option<Arc<Shared>>) -> Watch {
        let Some(shared) = shared else { return describe(&row, Status::of(&row), None) };
        // `None` before the environment is deployed.
        let environment = self.airflow.deployed(&row.environment).await.ok();
        let only_on_volume = match &environment {
            Some(environment) => self.only_on_volume(environment, &shared).await,
            None => None,
        };
        let mut status = shared.status();
        let locals = shared.locals();
        let shared_ids = environment.map(|environment| environment.shared_ids()).unwrap_or_default();
        status.warnings.extend(shared_dags(&shared_ids, |path| locals.contains_key(path)));
        describe(&row, status, only_on_volume)
    }

    /// Returns `None` if the Volume cannot be listed; the state of the watch has the reason.
    async fn only_on_volume(&self, environment: &Deployed, shared: &Shared) -> Option<VolumeFiles> {
        let asked = async { upload::remotes(&environment.volume().await?).await };
        let remotes = timeout(ANSWER_LIMIT, asked).await.ok()?.ok()?;
        let recorded = self.base.store.watched_paths(environment.name()).await.ok()?;
        Some(shared.only_on_volume(&remotes, |path| recorded.contains(path)))
    }

    fn directory(&self, asked: &str) -> Result<PathBuf> {
        let invalid = |message: String| Error::InvalidWatch(vec![Fault::new("directory", message)]);
        let directory =
            normal(asked).ok_or_else(|| invalid(format!("{asked:?} is not an absolute path without `..`")))?;
        if let Err(error) = std::fs::read_dir(&directory) {
            return Err(invalid(format!("{} cannot be read: {}", directory.display(), scan::plain(&error))));
        }
        let real = real(&directory);
        match self.own.iter().find(|own| own.starts_with(&real) || real.starts_with(own)) {
            Some(own) => Err(invalid(format!("{} has files of the daemon: {}", directory.display(), own.display()))),
            None => Ok(directory),
        }
    }

    /// Fails if the folder contains files that another watch of the environment syncs.
    async fn refuse_conflicts(&self, row: &WatchRow, directory: &Path, rules: Rules) -> Result<()> {
        let root = directory.to_owned();
        let scanned = tokio::task::spawn_blocking(move || scan(&root, &rules, &mut Nobody)).await;
        let scanned = scanned.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let scanned = scanned.map_err(|error| Error::InvalidWatch(vec![Fault::new("directory", error.to_string())]))?;
        let names: Vec<Name> = scanned.files.into_keys().collect();
        let conflicts = self.base.store.paths_of_other_watches(row, &names).await?;
        match conflicts.first() {
            None => Ok(()),
            Some((path, other)) => Err(Error::WatchConflicts {
                directory: row.directory.clone(),
                other: other.clone(),
                file: path.to_string(),
                count: conflicts.len(),
            }),
        }
    }
}

/// Resolves links in the path, if it exists.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
