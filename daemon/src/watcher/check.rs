//! Validates changed files before they are uploaded. They are imported in place, next to the other files of the folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use airflow_serverless_api::watch::{FileWarning, InvalidFile};
use tokio::task::JoinSet;

use super::{imports::Graph, local::Locals};
use crate::{airflow::Deployed, error::Result, model::Name, runtime::Verdict};

/// The faults of files; valid files have no entry.
pub type Faults = BTreeMap<Name, Vec<InvalidFile>>;

/// The results of validating files.
#[derive(Default)]
pub struct Verdicts {
    pub faults: Faults,
    pub warnings: BTreeMap<Name, Vec<FileWarning>>,
    /// The ids of the DAGs in valid files that are not known to be on the Volume.
    pub dags: BTreeMap<Name, Vec<String>>,
}

impl Verdicts {
    /// Forgets files that are no longer validated.
    pub fn retain(&mut self, is_tried: impl Fn(&Name) -> bool) {
        self.faults.retain(|path, _| is_tried(path));
        self.warnings.retain(|path, _| is_tried(path));
        self.dags.retain(|path, _| is_tried(path));
    }

    /// Removes and returns the ids of the DAGs in files that are now on the Volume.
    pub fn take_dags(&mut self, is_there: impl Fn(&Name) -> bool) -> Vec<(String, Vec<String>)> {
        let there: Vec<Name> = self.dags.keys().filter(|path| is_there(path)).cloned().collect();
        there.iter().filter_map(|path| Some((path.to_string(), self.dags.remove(path)?))).collect()
    }

    fn set(&mut self, file: Name, faults: Vec<InvalidFile>, warnings: Vec<FileWarning>, dags: Vec<String>) {
        if faults.is_empty() {
            drop(self.dags.insert(file.clone(), dags))
        } else {
            drop(self.dags.remove(&file))
        }
        if faults.is_empty() {
            drop(self.faults.remove(&file))
        } else {
            drop(self.faults.insert(file.clone(), faults))
        }
        if warnings.is_empty() { drop(self.warnings.remove(&file)) } else { drop(self.warnings.insert(file, warnings)) }
    }
}

/// Limit on the messages kept per file.
const MOST_MESSAGES: usize = 20;

/// Returns the files to validate after a change: the changed ones, and all that import them.
pub fn affected<'a>(
    changed: impl IntoIterator<Item = &'a Name> + Clone,
    locals: &Locals,
    graph: &Graph,
) -> BTreeSet<Name> {
    let mut found = graph.dependents(changed.clone());
    found.extend(changed.into_iter().cloned());
    found.retain(|path| locals.get(path).is_some_and(|local| local.role.is_imported()));
    found
}

/// Validates the files, several at once, and updates their verdicts.
pub async fn check(environment: &Deployed, root: &Path, files: BTreeSet<Name>, verdicts: &mut Verdicts) -> Result<()> {
    let mut running = JoinSet::new();
    for file in files {
        if running.len() > environment.validations_at_once() {
            note(running.join_next().await, root, verdicts)?;
        }
        let (environment, folder) = (environment.clone(), root.to_owned());
        running.spawn(async move {
            let path = folder.join(&*file);
            match environment.validate_file(&path, &folder, false).await {
                Ok(verdict) => Ok((file, Some(verdict))),
                // It was removed in the meantime; the next round handles that.
                Err(_) if !path.is_file() => Ok((file, None)),
                Err(error) => Err(error),
            }
        });
    }
    while !running.is_empty() {
        note(running.join_next().await, root, verdicts)?;
    }
    Ok(())
}

type Checked = Option<std::result::Result<Result<(Name, Option<Verdict>)>, tokio::task::JoinError>>;

fn note(checked: Checked, root: &Path, verdicts: &mut Verdicts) -> Result<()> {
    match checked {
        None => {}
        Some(Ok(checked)) => {
            let (file, verdict) = checked?;
            let verdict = verdict.unwrap_or_default();
            let dags = verdict.dags.iter().map(|dag| dag.dag_id.clone()).collect();
            let (faults, warnings) = describe(&file, root, verdict);
            verdicts.set(file, faults, warnings, dags);
        }
        // The task is never aborted, so this is its panic.
        Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
    }
    Ok(())
}

fn describe(file: &str, root: &Path, verdict: Verdict) -> (Vec<InvalidFile>, Vec<FileWarning>) {
    let prefix = format!("{}/", root.display());
    let plain = |message: &str| message.replace(&prefix, "");
    let faults = verdict.import_errors.into_iter().take(MOST_MESSAGES);
    let faults =
        faults.map(|fault| InvalidFile { file: file.to_owned(), line: fault.line, message: plain(&fault.message) });
    let warnings = verdict.warnings.iter().take(MOST_MESSAGES);
    let warnings = warnings.map(|warning| FileWarning { file: file.to_owned(), message: plain(warning) });
    (faults.collect(), warnings.collect())
}
