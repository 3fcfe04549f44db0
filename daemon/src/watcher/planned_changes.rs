//! The planned changes of a round, and which of them can be applied.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
};

use airflow_serverless_api::watch::{InvalidFile, PendingAction, PendingFile};

use super::{
    check::Faults,
    imports::Graph,
    local::Locals,
    plan::Plan,
    quarantine::{Quarantined, Tried, quarantine},
    scanned_folder::{ScannedFolder, is_still},
};
use crate::model::{Name, Records};

pub struct PlannedChanges {
    pub plan: Plan,
    pub graph: Graph,
    pub contents: HashMap<Name, Vec<u8>>,
    /// Local files that cannot be read.
    pub unreadable: Vec<InvalidFile>,
    /// Files that cannot be uploaded because of a file on the Volume or of another watch.
    pub refused: BTreeMap<Name, String>,
}

/// The quarantined changes, and whether a file changed after it was validated.
pub struct Held {
    pub why: BTreeMap<Name, Quarantined>,
    pub has_moved: bool,
}

impl PlannedChanges {
    pub fn new(scanned: ScannedFolder, plan: Plan, refused: BTreeMap<Name, String>) -> (Self, Locals) {
        let gone: Vec<Name> = plan.remove.iter().chain(&plan.replace).cloned().collect();
        let graph = Graph::new(&scanned.locals, &gone);
        let contents = scanned.contents.into_iter().collect();
        (Self { plan, graph, contents, unreadable: scanned.invalid, refused }, scanned.locals)
    }

    /// Iterates over all planned changes.
    fn changes(&self) -> impl Iterator<Item = &Name> {
        self.plan.upload.iter().chain(&self.plan.remove).chain(&self.plan.replace)
    }

    /// Returns the files that differ from the last validation; all planned changes if there was none.
    pub fn fresh(&self, now: &Locals, tried: Option<&Locals>) -> BTreeSet<Name> {
        let Some(tried) = tried else { return self.changes().cloned().collect() };
        let is_new = |(path, local): &(&Name, &super::local::Local)| {
            tried.get(*path).is_none_or(|before| before.sha256 != local.sha256 || before.role != local.role)
        };
        let gone = tried.keys().filter(|path| !now.contains_key(*path));
        now.iter().filter(is_new).map(|(path, _)| path).chain(gone).cloned().collect()
    }

    /// Returns the changes to quarantine.
    pub fn held(&self, root: &Path, locals: &Locals, records: &Records, faults: &Faults) -> Held {
        let changed: BTreeSet<Name> = self.changes().cloned().collect();
        let mut bad: BTreeSet<Name> = faults.keys().chain(self.refused.keys()).cloned().collect();
        // A verdict also depends on the imported files: they must be unchanged, too.
        let imported = self.plan.upload.iter().flat_map(|path| self.graph.dependencies(path));
        let tried: BTreeSet<Name> = self.plan.upload.iter().cloned().chain(imported).collect();
        let is_moved = |path: &Name| locals.get(path).is_some_and(|local| !is_still(&root.join(&**path), local.stamp));
        let moved: BTreeSet<Name> = tried.into_iter().filter(is_moved).collect();
        bad.extend(self.graph.dependents(&moved));
        let has_moved = !moved.is_empty();
        bad.extend(moved);
        let is_live = |path: &Name| records.get(path).is_some_and(|record| record.sha256.is_some());
        Held { why: quarantine(&Tried { changed: &changed, bad: &bad, graph: &self.graph }, is_live), has_moved }
    }

    /// Removes applied changes from the plan.
    pub fn remove_applied(&mut self, held: &BTreeMap<Name, Quarantined>) {
        for list in [&mut self.plan.upload, &mut self.plan.remove, &mut self.plan.replace] {
            list.retain(|path| held.contains_key(path));
        }
    }

    /// Returns the pending changes, and the files that the user must fix.
    pub fn describe(
        &self,
        held: &BTreeMap<Name, Quarantined>,
        faults: &Faults,
    ) -> (Vec<PendingFile>, Vec<InvalidFile>) {
        let (mut pending, mut invalid) = (Vec::new(), self.unreadable.clone());
        let told = |file: &Name, message: String| InvalidFile { file: file.to_string(), line: None, message };
        invalid.extend(self.refused.iter().map(|(path, message)| told(path, message.clone())));
        let uploads: BTreeSet<&Name> = self.plan.upload.iter().collect();
        for path in self.changes().filter(|path| !self.refused.contains_key(*path)) {
            let action = if uploads.contains(path) { PendingAction::Upload } else { PendingAction::Remove };
            let reason = match held.get(path) {
                Some(Quarantined::Own) if faults.contains_key(path) => {
                    invalid.extend(faults.get(path).into_iter().flatten().cloned());
                    continue;
                }
                Some(Quarantined::Breaks(other)) if !uploads.contains(other) && faults.contains_key(other) => {
                    let what = if action == PendingAction::Remove { "its removal" } else { "it" };
                    let fault = faults.get(other).and_then(|faults| faults.first());
                    let how = fault.map(place_and_message).unwrap_or_default();
                    invalid.push(told(path, format!("held back, as {what} would break {how}")));
                    continue;
                }
                Some(Quarantined::Own) => Some("it was changed while it was checked".to_owned()),
                Some(Quarantined::Breaks(other) | Quarantined::Waits(other)) => Some(format!("it waits for {other}")),
                None => None,
            };
            pending.push(PendingFile { file: path.to_string(), action, reason });
        }
        invalid.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        (pending, invalid)
    }
}

fn place_and_message(fault: &InvalidFile) -> String {
    let line = fault.line.map(|line| format!(":{line}")).unwrap_or_default();
    // The full message is shown for that file itself.
    format!("{}{line}: {}", fault.file, fault.message.lines().next().unwrap_or_default())
}
