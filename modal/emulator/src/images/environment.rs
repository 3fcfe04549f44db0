//! What a container of an image starts with.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::{copy::Files, recipe::SYSTEM_PATH};

/// What a container of an image starts with.
#[derive(Debug)]
pub struct Environment {
    pub python: PathBuf,
    /// Folders with programs, the first one first.
    pub bins: Vec<PathBuf>,
    pub variables: BTreeMap<String, String>,
    /// The working folder that the recipe sets.
    pub folder: Option<String>,
    pub files: Arc<Files>,
    /// A tree of files that commands of the recipe made.
    pub root: Option<PathBuf>,
    /// The folders with what functions that are steps of the recipe wrote, the last step first.
    pub homes: Vec<PathBuf>,
    /// The steps of the recipe that were skipped.
    pub skipped: Vec<String>,
}

impl Environment {
    /// The search path of programs: those beside the interpreter come first.
    pub fn search_path(&self) -> String {
        let bins = self.bins.iter().map(|bin| bin.to_string_lossy().into_owned());
        let path = self.variables.get("PATH").map_or(SYSTEM_PATH, String::as_str);
        bins.chain([path.to_owned()]).collect::<Vec<_>>().join(":")
    }
}
