//! One round of a watch: look, plan, try, upload, remove, wake the scheduler, write it down. Any step can be the last
//! one before the daemon is killed: the next round finds out what is left to do by looking again.

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
    snapshot::{Snapshot, digest, take_snapshot},
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

/// What a round works with, and what it knows from those before.
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

/// What rounds leave to the next one.
#[derive(Default)]
pub struct Memory {
    /// What was uploaded; `None` before it was read from the registry.
    records: Option<Arc<Records>>,
    /// The folder as it was when files were last tried, and those that did not import.
    tried: Option<Arc<Locals>>,
    verdicts: Verdicts,
    /// Whether it was asked which files define which DAGs.
    knows_definitions: bool,
    /// Looks in a row at a folder that somebody was writing to.
    postponed_rounds: u32,
    /// How long the last look took.
    pub snapshot_took: Duration,
}

/// Somebody who writes all the time does not keep others from being uploaded.
const MOST_POSTPONED_ROUNDS: u32 = 10;

/// A folder in which so long no file was changed has all that belongs there, if it is a new one: a clone, or another
/// branch's.
const FILLED_AFTER: Duration = Duration::from_secs(5);

/// Names, and warnings, in an event.
const MOST_NAMES: usize = 100;

/// Longest wait for what the scheduler has published of the DAGs in files.
const DEFINITIONS_LIMIT: Duration = Duration::from_secs(3);

/// How a round ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All that can be done is done.
    Done,
    /// Something changed meanwhile.
    Again,
    /// The folder is another one than it was, and may not be complete yet.
    Filling,
    /// The folder is not there, or not the one that was.
    Missing(String),
    /// The environment is not there yet, or is about to go.
    Waiting(String),
    /// The watch was removed, or its environment was.
    Gone,
}

impl Round {
    /// Runs a round. `compares`: whether to list the Volume; otherwise it is assumed to be as the last round left it.
    pub async fn run(&mut self, compares: bool) -> Result<Outcome> {
        match self.store.watch(self.row.id).await? {
            Some(row) => self.row = row,
            None => return Ok(Outcome::Gone),
        }
        let records = self.records().await?;
        let snapshot = match self.take_snapshot(&records).await {
            Ok(snapshot) => snapshot,
            Err(ScanError::Missing) => return Ok(Outcome::Missing("the folder is not there".to_owned())),
            Err(ScanError::Read(source)) => {
                return Err(Error::Files { action: "reading", path: self.row.directory.clone(), source });
            }
            Err(error) => return Err(Error::Watch(error.to_string())),
        };
        let (device, number, (seconds, nanoseconds)) = snapshot.identity;
        let identity = format!("{device}:{number}:{seconds}.{nanoseconds}");
        let is_another = self.row.identity.as_ref().is_some_and(|known| *known != identity);
        let is_unreported = is_another || self.is_polling();
        if snapshot.has_recent_changes() && is_unreported && self.memory.postponed_rounds < MOST_POSTPONED_ROUNDS {
            // Nobody tells when a save is finished, so the next look does.
            self.memory.postponed_rounds += 1;
            return Ok(Outcome::Again);
        }
        self.memory.postponed_rounds = 0;
        if snapshot.locals.is_empty() && is_another && !records.is_empty() {
            let message = "the folder is empty, and not the one that was there; is something not mounted?";
            return Ok(Outcome::Missing(message.to_owned()));
        }
        // While somebody fills it, what is missing may be on its way.
        let is_filled = !(is_another && self.row.deletes) || snapshot.quiet_for >= FILLED_AFTER;
        let is_new = self.row.identity.as_ref() != Some(&identity);
        let progress = Progress { identity: (is_new && is_filled).then_some(identity), ..Progress::default() };
        match self.airflow.deployed(&self.row.environment).await {
            Ok(environment) => {
                let outcome = self.sync(snapshot, &environment, progress, (compares, is_filled)).await?;
                Ok(if is_filled || outcome == Outcome::Gone { outcome } else { Outcome::Filling })
            }
            Err(error @ (Error::EnvironmentNotReady(..) | Error::EnvironmentDeleting(_))) => {
                self.publish_all_pending(&snapshot.locals);
                Ok(Outcome::Waiting(error.to_string()))
            }
            Err(Error::EnvironmentNotFound(_)) => Ok(Outcome::Gone),
            Err(error) => Err(error),
        }
    }

    /// After a failure nothing is taken for granted: what it was about may have happened or not.
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

    async fn take_snapshot(&mut self, records: &Arc<Records>) -> Result<Snapshot, ScanError> {
        let (root, rules, directory) = (self.root.clone(), self.rules.clone(), self.directory.clone());
        let (last, records) = (self.shared.locals(), records.clone());
        let started = Instant::now();
        let taken = tokio::task::spawn_blocking(move || {
            let mut directory = directory.lock();
            take_snapshot(&root, &rules, &mut directory, (&last, &records))
        });
        let taken = taken.await;
        self.memory.snapshot_took = started.elapsed();
        // It is not aborted, so if it failed, it panicked; so does this then.
        taken.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    async fn sync(
        &mut self,
        snapshot: Snapshot,
        environment: &Deployed,
        mut progress: Progress,
        (compares, is_filled): (bool, bool),
    ) -> Result<Outcome> {
        let records = self.records().await?;
        let deletes = self.row.deletes && is_filled;
        let plan = self.plan((&snapshot, &records), environment, &mut progress, (compares, deletes)).await?;
        refresh(&snapshot.locals, &records, &mut progress);
        let refused = self.refused(&plan, &records).await?;
        let (mut found, locals) = PlannedChanges::new(snapshot, plan, refused);
        let locals = Arc::new(locals);
        self.shared.set_locals(locals.clone());
        self.publish_status(&found, &records, &BTreeMap::new());

        let later = self.validate_affected(environment, &found, &locals, compares).await?;
        let mut again = self.apply(&mut found, &locals, environment, progress).await?;
        if !later.is_empty() {
            // What did not import before may have lacked what has just come.
            check(environment, &self.root, later, &mut self.memory.verdicts).await?;
            again |= self.apply(&mut found, &locals, environment, Progress::default()).await?;
        }
        Ok(if again { Outcome::Again } else { Outcome::Done })
    }

    /// The plan, where the contents decide whether something was replaced on the Volume.
    async fn plan(
        &self,
        (snapshot, records): (&Snapshot, &Records),
        environment: &Deployed,
        progress: &mut Progress,
        (compares, deletes): (bool, bool),
    ) -> Result<Plan> {
        let planned = |remotes: Option<&Remotes>| {
            let view = View { locals: &snapshot.locals, records, remotes, deletes };
            plan(&view, |path| snapshot.hides(path))
        };
        let mut plan = planned(None);
        // To clear the way for something it takes a look at what is in it.
        if compares || !plan.replace.is_empty() {
            let volume = environment.volume().await?;
            let remotes = upload::remotes(&volume).await?;
            plan = planned(Some(&remotes));
            for path in std::mem::take(&mut plan.verify) {
                let there = volume.read(&on_volume(&path)).await?;
                let (Some(record), Some(local)) = (records.get(&path), snapshot.locals.get(&path)) else { continue };
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

    /// What the user has to clear away before it can be uploaded.
    async fn refused(&self, plan: &Plan, records: &Records) -> Result<BTreeMap<Name, String>> {
        let mut refused: BTreeMap<_, _> = plan.blocked.iter().cloned().collect();
        for (path, directory) in
            self.store.paths_of_other_watches(&self.row, &unrecorded(&plan.upload, records)).await?
        {
            refused.insert(path, format!("the watch of {directory} has a file of this name"));
        }
        Ok(refused)
    }

    /// Tries what may import otherwise than the last time; gives what did not import then, and is to be tried later.
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
        // What was wrong may have passed, as a package index does that was not reached.
        let is_later = |path: &&Name| (compares || !fresh.is_empty()) && !affected.contains(*path);
        let later = verdicts.faults.keys().filter(is_later).cloned().collect();
        check(environment, &self.root, affected, verdicts).await?;
        self.memory.tried = Some(locals.clone());
        Ok(later)
    }

    /// Uploads and removes what need not wait. Returns whether something changed meanwhile.
    async fn apply(
        &mut self,
        found: &mut PlannedChanges,
        locals: &Locals,
        environment: &Deployed,
        mut progress: Progress,
    ) -> Result<bool> {
        let (records, volume) = (self.records().await?, environment.volume().await?);
        // It looks at files once more.
        let held =
            tokio::task::block_in_place(|| found.held(&self.root, locals, &records, &self.memory.verdicts.faults));
        let free = |list: &[Name]| list.iter().filter(|path| !held.why.contains_key(*path)).cloned().collect();
        let (uploads, removals): (Vec<Name>, Vec<Name>) = (free(&found.plan.upload), free(&found.plan.remove));
        let in_the_way: Vec<Name> = free(&found.plan.replace);
        upload::clear_way(&volume, &in_the_way, &uploads).await?;
        let new = unrecorded(&uploads, &records);
        self.store.claim_files(&self.row, &new).await?;
        if !self.store.paths_of_other_watches(&self.row, &new).await?.is_empty() {
            // Another watch was a moment quicker: the next round tells.
            return Ok(true);
        }
        let mut uploaded = Vec::new();
        let mut batches = upload::batches(uploads, locals, &found.graph).into_iter().peekable();
        while let Some(names) = batches.next() {
            let Some(files) = upload::contents(&self.root, names, locals, &mut found.contents).await? else {
                // Its stamp may not tell that it has changed: the next look reads what is not on the Volume.
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
        // What is back by now was not meant to go.
        let (back, removals): (Vec<Name>, Vec<Name>) =
            tokio::task::block_in_place(|| removals.into_iter().partition(|path| !is_absent(&self.root.join(&**path))));
        upload::remove(&volume, &removals).await?;
        let removed: Vec<Name> = removals.into_iter().chain(in_the_way).collect();
        if progress.uploads > 0 || !removed.is_empty() {
            // Before it is written down: whoever is killed in between does it again.
            environment.dags_changed().await?;
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

    /// What there is to warn of uploaded files. `ids` are those of the DAGs in files that were uploaded or removed.
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
            // They are uploaded, whatever is known of others.
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
            // Without an answer in time, what was known before has to do.
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

    /// Writes down what was done, and knows it from then on.
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

    /// Before the environment is there, nothing is.
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

/// Files that were touched, but are what they were: the next look need not read them.
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
