//! The status of a watch, as the API shows it.

use std::{collections::HashSet, sync::Arc};

use airflow_serverless_api::watch::{
    FileWarning, InvalidFile, PendingFile, VolumeFile, VolumeFileOrigin, VolumeFiles, Watch, WatchMode, WatchState,
};
use chrono::{DateTime, Utc};
use parking_lot::RwLock;

use super::{local::Locals, plan::Remotes, rules};
use crate::{
    airflow::{SharedId, shared_id_warnings},
    model::Name,
    store::WatchRow,
};

/// Limit on the entries of each list in a response.
const MOST_ENTRIES: usize = 100;

#[derive(Clone, Debug)]
pub struct Status {
    pub state: WatchState,
    pub message: Option<String>,
    pub retry_at: Option<DateTime<Utc>>,
    pub mode: WatchMode,
    pub warning: Option<String>,
    pub total_files: u64,
    pub total_in_sync: u64,
    pub pending: Vec<PendingFile>,
    pub invalid: Vec<InvalidFile>,
    pub warnings: Vec<FileWarning>,
    /// Files of this watch that stay on the Volume although they are gone here.
    pub kept: Vec<Name>,
    pub uploads: i64,
    pub synced_at: Option<DateTime<Utc>>,
}

impl Status {
    pub fn of(row: &WatchRow) -> Self {
        Self {
            state: WatchState::Pending,
            message: None,
            retry_at: None,
            mode: WatchMode::Inotify,
            warning: None,
            total_files: 0,
            total_in_sync: 0,
            pending: Vec::new(),
            invalid: Vec::new(),
            warnings: Vec::new(),
            kept: Vec::new(),
            uploads: row.uploads,
            synced_at: row.synced_at,
        }
    }
}

/// State shared by a running watch and the API.
pub struct Shared {
    status: RwLock<Status>,
    locals: RwLock<Arc<Locals>>,
}

impl Shared {
    pub fn new(row: &WatchRow) -> Self {
        Self { status: RwLock::new(Status::of(row)), locals: RwLock::default() }
    }

    pub fn status(&self) -> Status {
        self.status.read().clone()
    }

    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.write());
    }

    pub fn locals(&self) -> Arc<Locals> {
        self.locals.read().clone()
    }

    pub fn set_locals(&self, locals: Arc<Locals>) {
        *self.locals.write() = locals;
    }

    /// Returns the files on the Volume that are not in the folder. `is_of_another` tells which belong to other watches.
    pub fn only_on_volume(&self, remotes: &Remotes, is_of_another: impl Fn(&str) -> bool) -> VolumeFiles {
        let (locals, status) = (self.locals(), self.status());
        let kept: HashSet<&str> = status.kept.iter().map(|path| &**path).collect();
        let pending: HashSet<&str> = status.pending.iter().map(|file| &*file.file).collect();
        let mut found = VolumeFiles::default();
        let is_of_use = |path: &str| path.split('/').all(rules::is_of_use);
        let is_strange = |path: &str| is_of_use(path) && !locals.contains_key(path);
        for (path, _) in remotes.iter().filter(|(path, remote)| remote.is_file && is_strange(path)) {
            let is_kept = kept.contains(&**path);
            if pending.contains(&**path) || (!is_kept && is_of_another(path)) {
                continue;
            }
            found.total_entries += 1;
            if found.files.len() < MOST_ENTRIES {
                let origin = if is_kept { VolumeFileOrigin::Kept } else { VolumeFileOrigin::Other };
                found.files.push(VolumeFile { file: path.to_string(), origin });
            }
        }
        found
    }
}

/// Returns warnings about files that define a DAG of another file, if `is_of_interest` for one of the two.
pub fn shared_dags(shared: &[SharedId], is_of_interest: impl Fn(&str) -> bool) -> Vec<FileWarning> {
    shared_id_warnings(shared.iter().flat_map(|shared| {
        let counting = shared.owner.as_ref().unwrap_or(&shared.files[0]);
        let others = shared.files.iter().filter(move |file| *file != counting);
        let pairs = others.map(move |file| (shared, file.as_str(), counting.as_str()));
        pairs.filter(|(_, file, counting)| is_of_interest(file) || is_of_interest(counting))
    }))
}

/// Builds the API's representation of a watch.
pub fn describe(row: &WatchRow, status: Status, only_on_volume: Option<VolumeFiles>) -> Watch {
    let (total_pending, total_invalid) = (status.pending.len() as u64, status.invalid.len() as u64);
    Watch {
        id: row.id,
        environment: row.environment.clone(),
        directory: row.directory.clone(),
        delete: row.deletes,
        patterns: row.patterns.clone(),
        state: status.state,
        message: status.message,
        retry_at: status.retry_at,
        mode: status.mode,
        warning: status.warning,
        total_files: status.total_files,
        total_in_sync: status.total_in_sync,
        total_pending,
        total_invalid,
        pending: status.pending.into_iter().take(MOST_ENTRIES).collect(),
        invalid: status.invalid.into_iter().take(MOST_ENTRIES).collect(),
        warnings: status.warnings.into_iter().take(MOST_ENTRIES).collect(),
        only_on_volume,
        uploads: status.uploads,
        last_synced_at: status.synced_at,
        created_at: row.created_at,
    }
}
