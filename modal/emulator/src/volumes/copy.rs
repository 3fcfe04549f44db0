//! Copying within a Volume, by the rules of `cp`; blocking.

use std::{
    fs::{self, Metadata},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{
    list::is_partial,
    path::{locate, missing},
    place::{Contents, Placement, place},
};
use crate::error::Error;

/// Copies files, and folders with their contents if `recursive`, into a folder or to a new name.
pub fn copy(root: &Path, sources: &[String], destination: &str, recursive: bool) -> Result<(), Error> {
    let target = locate(root, destination)?;
    let into_folder = target.is_dir();
    if !into_folder && (sources.len() > 1 || destination.ends_with('/')) {
        return Err(Error::not_found("folder", destination));
    }
    if !target.parent().is_some_and(Path::is_dir) {
        return Err(Error::not_found("folder of", destination));
    }
    let mut plan = Plan::default();
    for path in sources {
        let source = locate(root, path)?;
        let meta = source.metadata().map_err(missing("copy", path))?;
        let target = match source.file_name() {
            Some(name) if into_folder && source != *root => target.join(name),
            _ => target.clone(),
        };
        if !meta.is_dir() {
            if target.is_dir() || target == source {
                return Err(Error::invalid("dst_path", format!("{destination:?} is what {path:?} cannot replace")));
            }
            plan.add_file(source, target, &meta);
        } else if !recursive {
            return Err(Error::invalid("src_paths", format!("{path:?} is a folder; copying it takes `recursive`")));
        } else if target.starts_with(&source) {
            return Err(Error::invalid("dst_path", format!("{path:?} cannot be copied into itself")));
        } else {
            plan.add_folder(&source, &target).map_err(Error::io("copy", path.as_str()))?;
        }
    }
    for folder in &plan.folders {
        fs::create_dir_all(folder).map_err(Error::io("copy to", destination))?;
    }
    place(root, plan.files)
}

/// What a copy amounts to.
#[derive(Default)]
struct Plan {
    folders: Vec<PathBuf>,
    files: Vec<Placement>,
}

impl Plan {
    fn add_file(&mut self, source: PathBuf, target: PathBuf, meta: &Metadata) {
        self.files.push(Placement { target, contents: Contents::Whole(source), mode: meta.permissions().mode() });
    }

    fn add_folder(&mut self, source: &Path, target: &Path) -> std::io::Result<()> {
        self.folders.push(target.to_owned());
        for item in fs::read_dir(source)? {
            let item = item?;
            let (from, to) = (item.path(), target.join(item.file_name()));
            let meta = from.symlink_metadata()?;
            if item.file_name().to_str().is_some_and(is_partial) {
                continue;
            }
            if meta.is_dir() {
                self.add_folder(&from, &to)?;
            } else if meta.is_symlink() {
                self.files.push(Placement { target: to, contents: Contents::Link(fs::read_link(&from)?), mode: 0 });
            } else if meta.is_file() {
                self.add_file(from, to, &meta);
            }
        }
        Ok(())
    }
}
