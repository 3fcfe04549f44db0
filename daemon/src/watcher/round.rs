//! One round of a watch: scan, plan, validate, upload, remove, wake the scheduler, record. The daemon may be killed
//! after any step: the next round scans again and finds the remaining work.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use airflow_serverless_api::{
    event::EventKind,
    watch::{FileWarning, PendingAction, PendingFile, WatchState},
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{
    check::{Verdicts, affected, check},
    directory_watcher::DirectoryWatcher,
    local::Locals,
    plan::{Plan, Remotes, View, plan},
    planned_changes::PlannedChanges,
    quarantine::Quarantined,
    rules::Rules,
    scan::ScanError,
    scanned_folder::{ScannedFolder, digest, scan_contents},
    status::{Shared, shared_dags},
    upload,
};
use crate::{
    airflow::{Airflow, Deployed, SharedId, on_volume},
    error::{Error, Result},
    model::{Clock, Name, Record, Records},
    report::chain,
    store::{Progress, Store, WatchRow},
};

/// A round's tools, and its state from earlier rounds.
pub struct Round {
    pub store: Store,
    pub airflow: Arc<Airflow>,
    pub clock: Clock,
    pub row: WatchRow,
    pub root: PathBuf,
    pub rules: Rules,
    pub directory: Arc<Mutex<DirectoryWatcher>>,
    pub shared: Arc<Shared>,
    pub memory: Memory,
}

/// State kept between rounds.
#[derive(Default)]
pub struct Memory {
    /// Records of uploads; `None` before they are read from the registry.
    records: Option<Arc<Records>>,
    /// The folder at the time of the last validation.
    tried: Option<Arc<Locals>>,
    verdicts: Verdicts,
    /// Whether the published DAG definitions were loaded.
    knows_definitions: bool,
    /// Consecutive rounds that were postponed because of ongoing writes.
    postponed_rounds: u32,
    /// How long the last scan took.
    pub scan_took: Duration,
}

/// Limit on postponed rounds, so that constant writes to some files do not block the upload of others.
const MOST_POSTPONED_ROUNDS: u32 = 10;

/// A replaced folder (a new clone, for example) counts as complete once no file has changed for this long.
const FILLED_AFTER: Duration = Duration::from_secs(5);

/// Limit on the names, and on the warnings, in an event.
const MOST_NAMES: usize = 100;

/// Longest wait for the DAG definitions that the scheduler has published.
const DEFINITIONS_LIMIT: Duration = Duration::from_secs(3);

/// How a round ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All possible work is done.
    Done,
    /// Something changed during the round.
    Again,
    /// The folder was replaced and may not be complete yet.
    Filling,
    /// The folder does not exist, or is not the original one.
    Missing(String),
    /// The environment does not exist yet, or is being deleted.
    Waiting(String),
    /// The watch or its environment was removed.
    Gone,
}

impl Round {
    /// Runs a round. `compares`: whether to list the Volume instead of assuming that it matches the records.
    pub async fn run(&mut self, compares: bool) -> Result<Outcome> {
        match self.store.watch(self.row.id).await? {
            Some(row) => self.row = row,
            None => return Ok(Outcome::Gone),
        }
        let records = self.records().await?;
        let scanned = match self.scan_contents(&records).await {
            Ok(scanned) => scanned,
            Err(ScanError::Missing) => return Ok(Outcome::Missing("the folder is not there".to_owned())),
            Err(ScanError::Read(source)) => {
                return Err(Error::Files { action: "reading", path: self.row.directory.clone(), source });
            }
            Err(error) => return Err(Error::Watch(error.to_string())),
        };
        let (device, number, (seconds, nanoseconds)) = scanned.identity;
        let identity = format!("{device}:{number}:{seconds}.{nanoseconds}");
        let is_another = self.row.identity.as_ref().is_some_and(|known| *known != identity);
        let is_unreported = is_another || self.is_polling();
        if scanned.has_recent_changes() && is_unreported && self.memory.postponed_rounds < MOST_POSTPONED_ROUNDS {
            // No event reports the end of a save here, so another round is needed.
            self.memory.postponed_rounds += 1;
            return Ok(Outcome::Again);
        }
        self.memory.postponed_rounds = 0;
        if scanned.locals.is_empty() && is_another && !records.is_empty() {
            let message = "the folder is empty, and not the one that was there; is something not mounted?";
            return Ok(Outcome::Missing(message.to_owned()));
        }
        // While a folder is being filled, missing files may still arrive.
        let is_filled = !(is_another && self.row.deletes) || scanned.quiet_for >= FILLED_AFTER;
        let is_new = self.row.identity.as_ref() != Some(&identity);
        let progress = Progress { identity: (is_new && is_filled).then_some(identity), ..Progress::default() };
        match self.airflow.deployed(&self.row.environment).await {
            Ok(environment) => {
                let outcome = self.sync(scanned, &environment, progress, (compares, is_filled)).await?;
                Ok(if is_filled || outcome == Outcome::Gone { outcome } else { Outcome::Filling })
            }
            Err(error @ (Error::EnvironmentNotReady(..) | Error::EnvironmentDeleting(_))) => {
                self.publish_all_pending(&scanned.locals);
                Ok(Outcome::Waiting(error.to_string()))
            }
            Err(Error::EnvironmentNotFound(_)) => Ok(Outcome::Gone),
            Err(error) => Err(error),
        }
    }

    /// Discards the cached records after a failure: the failed step may have taken effect or not.
    pub fn invalidate_cache(&mut self) {
        self.memory.records = None;
    }

    async fn records(&mut self) -> Result<Arc<Records>> {
        if let Some(records) = &self.memory.records {
            return Ok(records.clone());
        }
        let records = Arc::new(self.store.watched_files(self.row.id).await?);
        self.memory.records = Some(records.clone());
        Ok(records)
    }

    fn is_polling(&self) -> bool {
        self.directory.lock().warning().is_some()
    }

    async fn scan_contents(&mut self, records: &Arc<Records>) -> Result<ScannedFolder, ScanError> {
        let (root, rules, directory) = (self.root.clone(), self.rules.clone(), self.directory.clone());
        let (last, records) = (self.shared.locals(), records.clone());
        let started = Instant::now();
        let taken = tokio::task::spawn_blocking(move || {
            let mut directory = directory.lock();
            scan_contents(&root, &rules, &mut directory, (&last, &records))
        });
        let taken = taken.await;
        self.memory.scan_took = started.elapsed();
        // The task is never aborted, so an error is its panic.
        taken.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    async fn sync(
        &mut self,
        scanned: ScannedFolder,
        environment: &Deployed,
        mut progress: Progress,
        (compares, is_filled): (bool, bool),
    ) -> Result<Outcome> {
        let records = self.records().await?;
        let deletes = self.row.deletes && is_filled;
        let plan = self.plan((&scanned, &records), environment, &mut progress, (compares, deletes)).await?;
        refresh(&scanned.locals, &records, &mut progress);
        let refused = self.refused(&plan, &records).await?;
        let (mut found, locals) = PlannedChanges::new(scanned, plan, refused);
        let locals = Arc::new(locals);
        self.shared.set_locals(locals.clone());
        self.publish_status(&found, &records, &BTreeMap::new());

        let later = self.validate_affected(environment, &found, &locals, compares).await?;
        let mut again = self.apply(&mut found, &locals, environment, progress).await?;
        if !later.is_empty() {
            // Files that failed to import may have needed the ones just uploaded.
            check(environment, &self.root, later, &mut self.memory.verdicts).await?;
            again |= self.apply(&mut found, &locals, environment, Progress::default()).await?;
        }
        Ok(if again { Outcome::Again } else { Outcome::Done })
    }

    /// Computes the plan; compares contents to find files that were replaced on the Volume.
    async fn plan(
        &self,
        (scanned, records): (&ScannedFolder, &Records),
        environment: &Deployed,
        progress: &mut Progress,
        (compares, deletes): (bool, bool),
    ) -> Result<Plan> {
        let planned = |remotes: Option<&Remotes>| {
            let view = View { locals: &scanned.locals, records, remotes, deletes };
            plan(&view, |path| scanned.hides(path))
        };
        let mut plan = planned(None);
        // Clearing the way for an upload requires a listing of the Volume.
        if compares || !plan.replace.is_empty() {
            let volume = environment.volume().await?;
            let remotes = upload::remotes(&volume).await?;
            plan = planned(Some(&remotes));
            for path in std::mem::take(&mut plan.verify) {
                let there = volume.read(&on_volume(&path)).await?;
                let (Some(record), Some(local)) = (records.get(&path), scanned.locals.get(&path)) else { continue };
                if there.is_some_and(|content| digest(&content) == local.sha256) {
                    let on_volume = remotes.get(&*path).map(|remote| remote.modified);
                    progress.recorded.push((path, Record { on_volume, ..record.clone() }));
                } else {
                    plan.upload.push(path);
                }
            }
        }
        progress.forgotten.extend(plan.forget.iter().cloned());
        Ok(plan)
    }

    /// Returns the files that conflict with others, which the user must resolve first.
    async fn refused(&self, plan: &Plan, records: &Records) -> Result<BTreeMap<Name, String>> {
        let mut refused: BTreeMap<_, _> = plan.blocked.iter().cloned().collect();
        for (path, directory) in
            self.store.paths_of_other_watches(&self.row, &unrecorded(&plan.upload, records)).await?
        {
            refused.insert(path, format!("the watch of {directory} has a file of this name"));
        }
        Ok(refused)
    }

    /// Validates files that may import differently than last time; returns earlier failures, which are to be retried
    /// later.
    async fn validate_affected(
        &mut self,
        environment: &Deployed,
        found: &PlannedChanges,
        locals: &Arc<Locals>,
        compares: bool,
    ) -> Result<BTreeSet<Name>> {
        let fresh = found.fresh(locals, self.memory.tried.as_deref());
        let verdicts = &mut self.memory.verdicts;
        verdicts.retain(|path| locals.get(path).is_some_and(|local| local.role.is_imported()));
        let affected = affected(&fresh, locals, &found.graph);
        // A failure may be temporary, such as an unreachable package index.
        let is_later = |path: &&Name| (compares || !fresh.is_empty()) && !affected.contains(*path);
        let later = verdicts.faults.keys().filter(is_later).cloned().collect();
        check(environment, &self.root, affected, verdicts).await?;
        self.memory.tried = Some(locals.clone());
        Ok(later)
    }

    /// Uploads and removes all that is not quarantined. Returns whether something changed in the meantime.
    async fn apply(
        &mut self,
        found: &mut PlannedChanges,
        locals: &Locals,
        environment: &Deployed,
        mut progress: Progress,
    ) -> Result<bool> {
        let (records, volume) = (self.records().await?, environment.volume().await?);
        // Blocking: checks files on disk again.
        let held =
            tokio::task::block_in_place(|| found.held(&self.root, locals, &records, &self.memory.verdicts.faults));
        let free = |list: &[Name]| list.iter().filter(|path| !held.why.contains_key(*path)).cloned().collect();
        let (uploads, removals): (Vec<Name>, Vec<Name>) = (free(&found.plan.upload), free(&found.plan.remove));
        let in_the_way: Vec<Name> = free(&found.plan.replace);
        upload::clear_way(&volume, &in_the_way, &uploads).await?;
        let new = unrecorded(&uploads, &records);
        self.store.claim_files(&self.row, &new).await?;
        if !self.store.paths_of_other_watches(&self.row, &new).await?.is_empty() {
            // Another watch was faster; the next round reports the conflict.
            return Ok(true);
        }
        let mut uploaded = Vec::new();
        let mut batches = upload::batches(uploads, locals, &found.graph).into_iter().peekable();
        while let Some(names) = batches.next() {
            let Some(files) = upload::contents(&self.root, names, locals, &mut found.contents).await? else {
                // Its stamp may hide the change: the next scan rereads all files that are not on the Volume.
                self.shared.set_locals(Arc::default());
                self.save(progress).await?;
                return Ok(true);
            };
            uploaded.extend(files.iter().map(|(name, _)| name.clone()));
            progress.recorded.extend(upload::put(environment, files, locals, self.clock).await?);
            progress.uploads += 1;
            if batches.peek().is_some() {
                self.save(std::mem::take(&mut progress)).await?;
            }
        }
        // A file that is back by now must not be removed.
        let (back, removals): (Vec<Name>, Vec<Name>) =
            tokio::task::block_in_place(|| removals.into_iter().partition(|path| !is_absent(&self.root.join(&**path))));
        upload::remove(&volume, &removals).await?;
        let removed: Vec<Name> = removals.into_iter().chain(in_the_way).collect();
        if progress.uploads > 0 || !removed.is_empty() {
            // Before saving the progress, so that a daemon killed in between does it again.
            environment.notify_dags_changed().await?;
        }
        let is_there = |path: &Name| locals.contains_key(path) && !held.why.contains_key(path);
        let ids = self.memory.verdicts.take_dags(is_there);
        let ids = ids.into_iter().chain(removed.iter().map(|path| (path.to_string(), Vec::new())));
        let warnings = self.warnings(environment, &uploaded, ids.collect()).await;
        self.emit_event(EventKind::DagFilesUploaded, &uploaded, Some(&warnings)).await;
        self.emit_event(EventKind::DagFilesRemoved, &removed, None).await;
        progress.forgotten.extend(removed);
        self.save(progress).await?;
        found.remove_applied(&held.why);
        let records = self.records().await?;
        self.publish_status(found, &records, &held.why);
        Ok(held.has_moved || !back.is_empty())
    }

    /// Returns warnings about uploaded files. `ids` are those of the DAGs in uploaded or removed files.
    async fn warnings(
        &mut self,
        environment: &Deployed,
        uploaded: &[Name],
        ids: Vec<(String, Vec<String>)>,
    ) -> Vec<FileWarning> {
        let verdicts = &self.memory.verdicts.warnings;
        let mut warnings: Vec<FileWarning> =
            uploaded.iter().filter_map(|path| verdicts.get(path)).flatten().cloned().collect();
        match self.shared_ids(environment, uploaded, ids).await {
            Ok(shared) => {
                let uploaded: BTreeSet<&str> = uploaded.iter().map(|path| &**path).collect();
                warnings.extend(shared_dags(&shared, |path| uploaded.contains(path)));
            }
            // The upload succeeded even if the other files are unknown.
            Err(error) => tracing::warn!(error = chain(&error), "files that define the same DAGs are not known"),
        }
        warnings
    }

    async fn shared_ids(
        &mut self,
        environment: &Deployed,
        uploaded: &[Name],
        ids: Vec<(String, Vec<String>)>,
    ) -> Result<Vec<SharedId>> {
        environment.note_definitions(ids);
        let is_asked = !uploaded.is_empty() || !self.memory.knows_definitions;
        let uploaded: Vec<&str> = uploaded.iter().map(|path| &**path).collect();
        if is_asked && environment.needs_definitions(&uploaded) {
            // Without a response in time, the earlier definitions are used.
            if let Ok(loaded) = timeout(DEFINITIONS_LIMIT, environment.load_definitions()).await {
                loaded?;
            }
        }
        self.memory.knows_definitions = true;
        Ok(environment.shared_ids())
    }

    async fn emit_event(&self, kind: EventKind, files: &[Name], warnings: Option<&[FileWarning]>) {
        if !files.is_empty() {
            let names: Vec<&str> = files.iter().take(MOST_NAMES).map(|name| &**name).collect();
            let mut data = json!({"watch_id": self.row.id, "filenames": names, "total_entries": files.len()});
            if let Some(warnings) = warnings {
                data["warnings"] = json!(warnings[..warnings.len().min(MOST_NAMES)]);
            }
            self.airflow.record(kind, &self.row.environment, data).await;
        }
    }

    /// Records the progress and updates the cache.
    async fn save(&mut self, done: Progress) -> Result<()> {
        let now = (self.clock)();
        if !done.is_empty() {
            self.store.save_progress(&self.row, &done, now).await?;
            let mut records = Records::clone(&*self.records().await?);
            for path in &done.forgotten {
                records.remove(path);
            }
            records.extend(done.recorded);
            self.memory.records = Some(Arc::new(records));
        }
        self.shared.update(|status| {
            status.uploads += done.uploads;
            status.synced_at = Some(now);
        });
        Ok(())
    }

    /// Before the environment is ready, all files are pending.
    fn publish_all_pending(&self, locals: &Locals) {
        let pending = |path: &Name| PendingFile { file: path.to_string(), action: PendingAction::Upload, reason: None };
        self.shared.update(|status| {
            (status.total_files, status.total_in_sync) = (locals.len() as u64, 0);
            status.pending = locals.keys().map(pending).collect();
        });
    }

    fn publish_status(&self, found: &PlannedChanges, records: &Records, held: &BTreeMap<Name, Quarantined>) {
        let (pending, invalid) = found.describe(held, &self.memory.verdicts.faults);
        let warnings: Vec<FileWarning> = self.memory.verdicts.warnings.values().flatten().cloned().collect();
        let locals = self.shared.locals();
        let is_there =
            |(path, sha256): (&Name, _)| records.get(path).is_some_and(|record| record.sha256 == Some(sha256));
        let there = locals.iter().filter(|(path, local)| is_there((path, local.sha256))).count();
        self.shared.update(|status| {
            status.total_files = (locals.len() + found.unreadable.len()) as u64;
            status.total_in_sync = there as u64;
            (status.pending, status.invalid, status.warnings) = (pending, invalid, warnings);
            status.kept.clone_from(&found.plan.keep);
            if !status.pending.is_empty() {
                status.state = WatchState::Pending;
            }
        });
    }
}

fn is_absent(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
}

fn unrecorded(paths: &[Name], records: &Records) -> Vec<Name> {
    paths.iter().filter(|path| !records.contains_key(*path)).cloned().collect()
}

/// Updates the records of touched but unchanged files, so that the next scan need not read them.
fn refresh(locals: &Locals, records: &Records, progress: &mut Progress) {
    let known: BTreeSet<Name> = progress.recorded.iter().map(|(path, _)| path.clone()).collect();
    for (path, local) in locals.iter().filter(|(path, _)| !known.contains(*path)) {
        if let Some(record) = records.get(path).filter(|record| record.sha256 == Some(local.sha256))
            && record.stamp != local.stamp
        {
            progress.recorded.push((path.clone(), Record { stamp: local.stamp, ..record.clone() }));
        }
    }
}
