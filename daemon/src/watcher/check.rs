//! Trying changed files before they are uploaded: they are imported where they are, with all that is beside them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use airflow_serverless_api::watch::InvalidFile;
use tokio::task::JoinSet;

use super::{
    imports::Graph,
    record::{Locals, Name},
};
use crate::{
    error::{Error, Result},
    runtime::{Validator, Verdict},
};

/// What is wrong with files; those that are fine are not in it.
pub type Faults = BTreeMap<Name, Vec<InvalidFile>>;

/// Messages of one file that are kept.
const MOST_FAULTS: usize = 20;

/// Files that have to be tried because of what changed: the changed ones, and whatever imports them.
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

/// Tries the files, several at once, and writes down in `faults` what is wrong with each of them now.
pub async fn check(validator: &Validator, root: &Path, files: BTreeSet<Name>, faults: &mut Faults) -> Result<()> {
    let mut running = JoinSet::new();
    for file in files {
        if running.len() > validator.at_once() {
            note(running.join_next().await, faults)?;
        }
        let (validator, root) = (validator.clone(), root.to_owned());
        running.spawn(async move {
            let path = root.join(&*file);
            match validator.validate(&path, &root).await {
                Ok(verdict) => Ok((describe(&file, &root, verdict), file)),
                // It was removed meanwhile, which the next round takes up.
                Err(_) if !path.is_file() => Ok((Vec::new(), file)),
                Err(error) => Err(Error::from(error)),
            }
        });
    }
    while !running.is_empty() {
        note(running.join_next().await, faults)?;
    }
    Ok(())
}

type Checked = Option<std::result::Result<Result<(Vec<InvalidFile>, Name)>, tokio::task::JoinError>>;

fn note(checked: Checked, faults: &mut Faults) -> Result<()> {
    match checked {
        None => {}
        Some(Ok(checked)) => {
            let (found, file) = checked?;
            if found.is_empty() { drop(faults.remove(&file)) } else { drop(faults.insert(file, found)) }
        }
        // It is not aborted, so it panicked; so does this then.
        Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
    }
    Ok(())
}

fn describe(file: &str, root: &Path, verdict: Verdict) -> Vec<InvalidFile> {
    for warning in &verdict.warnings {
        tracing::info!(file, warning, "a watched file has a warning");
    }
    let prefix = format!("{}/", root.display());
    let faults = verdict.import_errors.into_iter().take(MOST_FAULTS);
    faults
        .map(|fault| InvalidFile {
            file: file.to_owned(),
            line: fault.line,
            message: fault.message.replace(&prefix, ""),
        })
        .collect()
}
