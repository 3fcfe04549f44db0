//! Quarantines changes that would break files on the Volume, and the changes that depend on them.
//!
//! The files on the Volume work together, and the files in the folder were validated together. So if a file stays at
//! its old version, all that it imports and all that import it stay at theirs.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::Graph;
use crate::model::Name;

/// Why a change is quarantined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quarantined {
    /// The file is invalid itself, or changed since it was validated.
    Own,
    /// It would break the import of this file, which is also on the Volume.
    Breaks(Name),
    /// It imports this file, whose change is also quarantined.
    Waits(Name),
}

/// The validated changes and their result.
pub struct Tried<'a> {
    /// Files that are new, changed or gone.
    pub changed: &'a BTreeSet<Name>,
    /// Files, changed or not, that fail to import, and changed ones that must not be uploaded for other reasons.
    pub bad: &'a BTreeSet<Name>,
    pub graph: &'a Graph,
}

/// Returns the quarantined changes. `is_live` tells whether an older version of a file is on the Volume.
pub fn quarantine(tried: &Tried<'_>, is_live: impl Fn(&Name) -> bool) -> BTreeMap<Name, Quarantined> {
    let mut held = BTreeMap::new();
    let mut ahead: Vec<Name> = tried.bad.iter().cloned().collect();
    for file in tried.bad.intersection(tried.changed) {
        held.insert(file.clone(), Quarantined::Own);
    }
    while let Some(file) = ahead.pop() {
        // The old version stays on the Volume, and so must what it imports.
        if is_live(&file) {
            for imported in tried.graph.dependencies(&file) {
                add(tried, &mut held, &mut ahead, imported, Quarantined::Breaks(file.clone()));
            }
        }
        if tried.changed.contains(&file) {
            for importing in tried.graph.dependents([&file]) {
                add(tried, &mut held, &mut ahead, importing, Quarantined::Waits(file.clone()));
            }
        }
    }
    held
}

fn add(tried: &Tried<'_>, held: &mut BTreeMap<Name, Quarantined>, ahead: &mut Vec<Name>, file: Name, why: Quarantined) {
    if tried.changed.contains(&file) && !held.contains_key(&file) {
        held.insert(file.clone(), why);
        ahead.push(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watcher::imports::tests::folder;

    fn names(paths: &[&str]) -> BTreeSet<Name> {
        paths.iter().map(|path| (*path).into()).collect()
    }

    /// `etl` and `report` import `helper`, `report` imports `format` as well; `alone` imports nothing.
    fn held(changed: &[&str], bad: &[&str], live: &[&str]) -> Vec<(String, Quarantined)> {
        let locals = folder(&[
            ("alone.py", ""),
            ("etl.py", "import helper"),
            ("format.py", ""),
            ("helper.py", ""),
            ("report.py", "import helper, format"),
        ]);
        let gone: Vec<Name> = changed.iter().map(|path| (*path).into()).filter(|p| !locals.contains_key(p)).collect();
        let (changed, bad, live) = (names(changed), names(bad), names(live));
        let tried = Tried { changed: &changed, bad: &bad, graph: &Graph::new(&locals, &gone) };
        let held = quarantine(&tried, |path| live.contains(path));
        held.into_iter().map(|(path, why)| (path.to_string(), why)).collect()
    }

    #[test]
    fn only_the_broken_file_is_quarantined() {
        assert_eq!(held(&["alone.py", "etl.py"], &["etl.py"], &["etl.py"]), [("etl.py".into(), Quarantined::Own)]);
        assert_eq!(held(&["alone.py"], &[], &["alone.py"]), []);
    }

    #[test]
    fn helper_that_breaks_a_dag_is_quarantined_with_dependents() {
        let found = held(&["alone.py", "helper.py", "report.py"], &["etl.py"], &["etl.py", "report.py", "helper.py"]);
        let expected = [
            ("helper.py".into(), Quarantined::Breaks("etl.py".into())),
            ("report.py".into(), Quarantined::Waits("helper.py".into())),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn changed_imports_of_a_broken_file_are_quarantined() {
        // The old report was never validated with the new format.
        let found = held(&["format.py", "helper.py", "report.py"], &["report.py"], &["report.py"]);
        let why = Quarantined::Breaks("report.py".into());
        let expected =
            [("format.py".into(), why.clone()), ("helper.py".into(), why), ("report.py".into(), Quarantined::Own)];
        assert_eq!(found, expected);
        // A new file has no old version that could break.
        assert_eq!(held(&["format.py", "report.py"], &["report.py"], &[]), [("report.py".into(), Quarantined::Own)]);
    }

    #[test]
    fn deletion_of_an_imported_helper_is_quarantined() {
        let found = held(&["plugins/gone.py"], &[], &[]);
        assert_eq!(found, []);
        let locals = folder(&[("etl.py", "import gone")]);
        let (changed, bad) = (names(&["gone.py"]), names(&["etl.py"]));
        let tried = Tried { changed: &changed, bad: &bad, graph: &Graph::new(&locals, &["gone.py".into()]) };
        assert_eq!(quarantine(&tried, |_| true), [("gone.py".into(), Quarantined::Breaks("etl.py".into()))].into());
    }
}
