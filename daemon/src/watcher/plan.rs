//! Plans how to make the Volume match the folder, from the local files, the records of uploads and, if listed, the
//! files on the Volume. Pure: changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use super::local::Locals;
use crate::model::{Name, Record, Records};

/// Tolerance between the time of an upload here and on the Volume.
const CLOCK_SKEW_SECONDS: i64 = 2;

/// The files below `dags/` on the Volume.
pub type Remotes = BTreeMap<Box<str>, Remote>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    pub is_file: bool,
    pub size: u64,
    /// Seconds since the epoch.
    pub modified: i64,
}

/// The input of a plan.
pub struct View<'a> {
    pub locals: &'a Locals,
    pub records: &'a Records,
    /// `None` if the Volume was not listed: it is assumed to match the records.
    pub remotes: Option<&'a Remotes>,
    /// Whether local removals are applied to the Volume.
    pub deletes: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Files to upload: missing or different on the Volume.
    pub upload: Vec<Name>,
    /// Files that may have been replaced on the Volume; their content must be compared.
    pub verify: Vec<Name>,
    /// Uploaded files that were removed here and must be removed there.
    pub remove: Vec<Name>,
    /// Uploaded files that are in the way of an upload because a file became a folder, or the other way round.
    pub replace: Vec<Name>,
    /// Files that conflict with files that others have put on the Volume, and why.
    pub blocked: Vec<(Name, String)>,
    /// Uploaded files that are gone here and on the Volume.
    pub forget: Vec<Name>,
    /// Files that are gone here but stay on the Volume.
    pub keep: Vec<Name>,
}

/// Computes the plan for all files except those that may exist unseen according to `hides`.
pub fn plan(view: &View<'_>, hides: impl Fn(&str) -> bool) -> Plan {
    let mut plan = Plan::default();
    for (path, local) in view.locals {
        let record = view.records.get(path);
        if record.is_none_or(|record| record.sha256 != Some(local.sha256)) {
            plan.upload.push(path.clone());
        } else if let (Some(remotes), Some(record)) = (view.remotes, record) {
            match remotes.get(&**path) {
                Some(remote) if is_unchanged(record, remote) => {}
                Some(remote) if remote.is_file && remote.size == record.stamp.size => plan.verify.push(path.clone()),
                _ => plan.upload.push(path.clone()),
            }
        }
    }
    for path in view.records.keys().filter(|path| !view.locals.contains_key(*path) && !hides(path)) {
        let is_gone = view.remotes.is_some_and(|remotes| !remotes.contains_key(&**path));
        if is_gone {
            plan.forget.push(path.clone());
        } else if is_in_the_way(path, view.locals) {
            plan.replace.push(path.clone());
        } else if view.deletes {
            plan.remove.push(path.clone());
        } else {
            plan.keep.push(path.clone());
        }
    }
    if let Some(remotes) = view.remotes {
        plan.blocked = blocked(&plan, view, remotes);
        let is_blocked: BTreeSet<_> = plan.blocked.iter().map(|(path, _)| path).collect();
        plan.upload.retain(|path| !is_blocked.contains(path));
    }
    plan
}

/// Whether the file on the Volume is still the uploaded one.
fn is_unchanged(record: &Record, remote: &Remote) -> bool {
    let is_of_that_time = match record.on_volume {
        Some(seen) => remote.modified == seen,
        None => (remote.modified - record.uploaded_at).abs() <= CLOCK_SKEW_SECONDS,
    };
    remote.is_file && remote.size == record.stamp.size && is_of_that_time
}

/// Whether an uploaded file is where a folder must be now, or inside a folder that must become a file.
fn is_in_the_way(path: &str, locals: &Locals) -> bool {
    let below = format!("{path}/");
    let is_folder = locals.range::<str, _>(from(&below)).next().is_some_and(|(name, _)| name.starts_with(&below));
    is_folder || above(path).any(|folder| locals.contains_key(folder))
}

fn from(start: &str) -> (Bound<&str>, Bound<&str>) {
    (Bound::Included(start), Bound::Unbounded)
}

/// Iterates over the parent folders of a path.
fn above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(end, _)| &path[..end])
}

fn blocked(plan: &Plan, view: &View<'_>, remotes: &Remotes) -> Vec<(Name, String)> {
    let is_ours = |path: &str| plan.replace.iter().any(|ours| &**ours == path);
    let has_foreign = |folder: &str| {
        let below = format!("{folder}/");
        let inside = remotes.range::<str, _>(from(&below)).take_while(|(name, _)| name.starts_with(&below));
        inside.filter(|(_, remote)| remote.is_file).any(|(name, _)| !is_ours(name))
    };
    let mut found = Vec::new();
    for path in &plan.upload {
        let is_file = |place: &str| remotes.get(place).is_some_and(|remote| remote.is_file);
        if let Some(file) = above(path).find(|folder| is_file(folder) && !is_ours(folder)) {
            found.push((
                path.clone(),
                format!("on the Volume {file} is a file; `dags delete --file {file}` removes it"),
            ));
        } else if remotes.get(&**path).is_some_and(|remote| !remote.is_file) && has_foreign(path) {
            found.push((
                path.clone(),
                "on the Volume this is a folder with files that did not come from here".to_owned(),
            ));
        }
    }
    debug_assert!(found.iter().all(|(path, _)| view.locals.contains_key(path)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Digest, Stamp},
        watcher::local::{Local, Role},
    };

    const A: Digest = [1; 32];
    const B: Digest = [2; 32];
    const UPLOADED_AT: i64 = 1_000;

    fn locals(files: &[(&str, Digest)]) -> Locals {
        let local = |sha256| Local { stamp: Stamp::default(), sha256, imports: "".into(), role: Role::Dags };
        files.iter().map(|(path, digest)| ((*path).into(), local(*digest))).collect()
    }

    fn records(files: &[(&str, Option<Digest>)]) -> Records {
        let stamp = Stamp { size: 10, ..Stamp::default() };
        let record = |sha256| Record { sha256, stamp, uploaded_at: UPLOADED_AT, ..Record::default() };
        files.iter().map(|(path, digest)| ((*path).into(), record(*digest))).collect()
    }

    fn remotes(files: &[(&str, u64, i64)]) -> Remotes {
        let remote = |size, modified| Remote { is_file: true, size, modified };
        files.iter().map(|(path, size, modified)| ((*path).into(), remote(*size, *modified))).collect()
    }

    fn planned(locals: &Locals, records: &Records, remotes: Option<&Remotes>, deletes: bool) -> Plan {
        plan(&View { locals, records, remotes, deletes }, |path| path.starts_with("hidden/"))
    }

    fn names(paths: &[&str]) -> Vec<Name> {
        paths.iter().map(|path| (*path).into()).collect()
    }

    #[test]
    fn new_changed_and_partly_uploaded_files_are_uploaded() {
        let here = locals(&[("new.py", A), ("changed.py", B), ("begun.py", A), ("same.py", A)]);
        let then = records(&[("changed.py", Some(A)), ("begun.py", None), ("same.py", Some(A))]);
        let plan = planned(&here, &then, None, true);
        assert_eq!(plan, Plan { upload: names(&["begun.py", "changed.py", "new.py"]), ..Plan::default() });
    }

    #[test]
    fn deleted_files_are_removed_only_if_requested() {
        let then = records(&[("gone.py", Some(A)), ("hidden/x.py", Some(A)), ("begun.py", None)]);
        let kept = planned(&locals(&[]), &then, None, false);
        assert_eq!(kept, Plan { keep: names(&["begun.py", "gone.py"]), ..Plan::default() });
        let removed = planned(&locals(&[]), &then, None, true);
        assert_eq!(removed, Plan { remove: names(&["begun.py", "gone.py"]), ..Plan::default() });
        let gone_there = planned(&locals(&[]), &then, Some(&remotes(&[("gone.py", 10, 0)])), true);
        let expected = Plan { remove: names(&["gone.py"]), forget: names(&["begun.py"]), ..Plan::default() };
        assert_eq!(gone_there, expected);
    }

    #[test]
    fn foreign_changes_on_the_volume_are_repaired_or_verified() {
        let here = locals(&[("same.py", A), ("removed.py", A), ("grown.py", A), ("later.py", A)]);
        let mut then = records(&["same.py", "removed.py", "grown.py", "later.py"].map(|path| (path, Some(A))));
        let there =
            remotes(&[("same.py", 10, UPLOADED_AT + 1), ("grown.py", 11, UPLOADED_AT), ("later.py", 10, 2_000)]);
        let plan = planned(&here, &then, Some(&there), false);
        let expected =
            Plan { upload: names(&["grown.py", "removed.py"]), verify: names(&["later.py"]), ..Plan::default() };
        assert_eq!(plan, expected);
        // Once its time on the Volume is recorded, it must match exactly.
        then.get_mut("later.py").expect("a record").on_volume = Some(2_000);
        then.get_mut("same.py").expect("a record").on_volume = Some(UPLOADED_AT);
        assert_eq!(planned(&here, &then, Some(&there), false).verify, names(&["same.py"]));
    }

    #[test]
    fn file_that_became_a_folder_is_replaced_and_vice_versa() {
        let then = records(&[("a", Some(A)), ("b/x.py", Some(A)), ("c.py", Some(A))]);
        let plan = planned(&locals(&[("a/y.py", A), ("b", A), ("c.py", A)]), &then, None, false);
        let expected = Plan { upload: names(&["a/y.py", "b"]), replace: names(&["a", "b/x.py"]), ..Plan::default() };
        assert_eq!(plan, expected);
    }

    #[test]
    fn foreign_paths_in_the_way_are_reported_as_blocked() {
        let mut there = remotes(&[("a", 1, 1), ("b/theirs.py", 1, 1)]);
        there.insert("b".into(), Remote { is_file: false, size: 0, modified: 1 });
        let here = locals(&[("a/y.py", A), ("b", A), ("fine.py", A)]);
        let plan = planned(&here, &records(&[]), Some(&there), true);
        assert_eq!(plan.upload, names(&["fine.py"]));
        assert_eq!(plan.blocked.iter().map(|(path, _)| &**path).collect::<Vec<_>>(), ["a/y.py", "b"]);
    }
}
