//! A look at the folder: which files there are, without reading them.

use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use airflow_serverless_api::watch::InvalidFile;

use super::{
    record::{Name, Role, Stamp},
    rules::{self, IGNORE_FILE, Ignores, Patterns},
};
use crate::airflow::PLUGINS;

/// A folder with more is none of DAGs: somebody watches a home directory.
const MOST_FILES: usize = 100_000;
const DEEPEST: usize = 64;

/// What tells a folder or file from all others, whatever its name: its device, its number there, which is given anew when
/// it is gone, and when it was made (seconds and nanoseconds since the epoch), if the file system knows that.
pub type Identity = (u64, u64, (u64, u32));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub stamp: Stamp,
    pub role: Role,
}

/// What is in the folder.
#[derive(Debug)]
pub struct Scan {
    pub identity: Identity,
    pub files: BTreeMap<Name, Found>,
    /// What cannot be uploaded as it is.
    pub invalid: Vec<InvalidFile>,
    /// Paths below which nothing could be seen: what was there may still be.
    pub hidden: Vec<String>,
}

impl Scan {
    /// Whether a file of this path would not have been seen.
    pub fn hides(&self, path: &str) -> bool {
        let is_below = |folder: &String| path.strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/'));
        self.hidden.iter().any(|hidden| hidden == path || is_below(hidden))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("the folder is not there")]
    Missing,
    #[error("the folder cannot be read")]
    Read(#[source] io::Error),
    #[error("there are more than {MOST_FILES} files: watch a folder that has only DAGs and what they need")]
    TooMany,
}

/// Who wants to know of folders before they are read, and of files elsewhere that are linked to.
pub trait Visitor {
    fn folder(&mut self, path: &Path, identity: Identity);
    fn linked_file(&mut self, path: &Path, identity: Identity);
}

/// Looks at all files below the folder. Links are followed wherever they lead.
pub fn scan(root: &Path, patterns: &Patterns, visitor: &mut dyn Visitor) -> Result<Scan, ScanError> {
    let metadata = fs::metadata(root).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ScanError::Missing,
        _ => ScanError::Read(error),
    })?;
    if !metadata.is_dir() {
        return Err(ScanError::Missing);
    }
    let identity = identity(&metadata);
    let scan = Scan { identity, files: BTreeMap::new(), invalid: Vec::new(), hidden: Vec::new() };
    let mut walk = Walk { patterns, visitor, ignores: Ignores::default(), above: Vec::new(), scan };
    walk.folder(root, "", identity, false).map_err(|error| match error {
        FolderError::Read(error) if error.kind() == io::ErrorKind::NotFound => ScanError::Missing,
        FolderError::Read(error) => ScanError::Read(error),
        FolderError::TooMany => ScanError::TooMany,
    })?;
    Ok(walk.scan)
}

pub fn identity(metadata: &Metadata) -> Identity {
    let made = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    (metadata.dev(), metadata.ino(), (made.as_secs(), made.subsec_nanos()))
}

struct Walk<'a> {
    patterns: &'a Patterns,
    visitor: &'a mut dyn Visitor,
    ignores: Ignores,
    /// The folders from the root down to here: a link to one of them is a loop.
    above: Vec<Identity>,
    scan: Scan,
}

enum FolderError {
    Read(io::Error),
    TooMany,
}

impl Walk<'_> {
    fn folder(&mut self, path: &Path, name: &str, identity: Identity, ignored: bool) -> Result<(), FolderError> {
        // First the watch, then the look: nothing can come in between unseen.
        self.visitor.folder(path, identity);
        let entries = fs::read_dir(path).map_err(FolderError::Read)?;
        let outer = self.ignores.len();
        if let Ok(text) = fs::read_to_string(path.join(IGNORE_FILE)) {
            self.ignores.push(path, &text);
        }
        self.above.push(identity);
        let walked = entries.into_iter().try_for_each(|entry| {
            let entry = entry.map_err(FolderError::Read)?;
            self.entry(&entry, name, ignored)
        });
        self.above.pop();
        self.ignores.truncate(outer);
        walked
    }

    fn entry(&mut self, entry: &fs::DirEntry, folder: &str, ignored: bool) -> Result<(), FolderError> {
        let name = entry.file_name();
        let shown = name.to_string_lossy();
        if !rules::is_of_use(&shown) {
            return Ok(());
        }
        let path = entry.path();
        let below = if folder.is_empty() { shown.to_string() } else { format!("{folder}/{shown}") };
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let metadata = match if is_link { fs::metadata(&path) } else { entry.metadata() } {
            Ok(metadata) => metadata,
            // It has just been removed.
            Err(error) if !is_link && error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                let what = if is_link { "the link leads nowhere" } else { "it cannot be read" };
                self.unseen(below, format!("{what}: {}", plain(&error)));
                return Ok(());
            }
        };
        if metadata.is_dir() {
            return self.subfolder(&path, below, &metadata, ignored);
        }
        if metadata.is_file() && !rules::is_passing_file(&shown) && self.patterns.allow(&below) {
            if is_link && let Ok(target) = path.canonicalize() {
                self.visitor.linked_file(&target, identity(&metadata));
            }
            self.file(&path, &below, name.to_str().is_none(), &metadata, ignored);
        }
        if self.scan.files.len() > MOST_FILES { Err(FolderError::TooMany) } else { Ok(()) }
    }

    fn subfolder(&mut self, path: &Path, below: String, metadata: &Metadata, ignored: bool) -> Result<(), FolderError> {
        let identity = identity(metadata);
        if self.above.contains(&identity) || self.above.len() >= DEEPEST {
            self.unseen(below, "the link leads back to a folder above it".to_owned());
            return Ok(());
        }
        if rules::is_virtual_environment(path) {
            return Ok(());
        }
        let ignored = ignored || self.ignores.ignore(path, true);
        match self.folder(path, &below, identity, ignored) {
            // It has just been removed, or a part of it.
            Err(FolderError::Read(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(FolderError::Read(error)) => {
                self.unseen(below, format!("the folder cannot be read: {}", plain(&error)));
                Ok(())
            }
            walked => walked,
        }
    }

    fn file(&mut self, path: &Path, below: &str, is_strange: bool, metadata: &Metadata, ignored: bool) {
        let strange = "its name is not UTF-8: rename it".to_owned();
        let refusal = if is_strange { Some(strange) } else { rules::refusal(below, metadata.len()) };
        if let Some(message) = refusal {
            self.unseen(below.to_owned(), message);
            return;
        }
        let ignored = || ignored || self.ignores.ignore(path, false);
        let role = match path.extension().and_then(|extension| extension.to_str()) {
            Some("py") if below.starts_with(PLUGINS) => Role::Plugin,
            Some("py") if ignored() => Role::Module,
            Some("py") => Role::Dags,
            Some("zip") if !below.starts_with(PLUGINS) && !ignored() => Role::Dags,
            _ => Role::Data,
        };
        self.scan.files.insert(below.into(), Found { stamp: Stamp::of(metadata), role });
    }

    /// Something is there, but cannot be uploaded; so what was there before is not gone.
    fn unseen(&mut self, file: String, message: String) {
        self.scan.invalid.push(InvalidFile { file: file.clone(), line: None, message });
        self.scan.hidden.push(file);
    }
}

/// An error of the system without its number.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// A visitor that wants to know nothing.
pub struct Nobody;

impl Visitor for Nobody {
    fn folder(&mut self, _path: &Path, _identity: Identity) {}
    fn linked_file(&mut self, _path: &Path, _identity: Identity) {}
}

/// The folder as the user gave it, without what only makes it longer; `None` if it is not absolute or leads up.
pub fn normal(directory: &str) -> Option<PathBuf> {
    use std::path::Component;
    let path = Path::new(directory);
    let leads_down = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    (path.is_absolute() && leads_down && !directory.contains('\0')).then(|| path.components().collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn look(root: &Path) -> Scan {
        scan(root, &Patterns::new(&[]).expect("patterns"), &mut Nobody).expect("a scan")
    }

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(path, text).expect("a file");
    }

    fn names(scan: &Scan) -> Vec<&str> {
        scan.files.keys().map(|name| &**name).collect()
    }

    #[test]
    fn what_dags_may_need_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let kept = [
            ".airflowignore",
            "a/b/c.py",
            "a/b/load.sql",
            "etl.py",
            "lib/x.py",
            "packed.zip",
            "plugins/p.py",
            "sediments/x.py",
        ];
        for name in kept {
            write(root, name, "lib\n");
        }
        for name in [
            ".git/x.py",
            "venv/pyvenv.cfg",
            "venv/lib/x.py",
            "__pycache__/etl.pyc",
            "etl.py~",
            "a/.hidden",
            "sedAb12Cd",
        ] {
            write(root, name, "");
        }
        let scan = look(root);
        assert_eq!(names(&scan), kept);
        assert!(scan.invalid.is_empty(), "{:?}", scan.invalid);
        let role = |name: &str| scan.files[name].role;
        assert_eq!((role("etl.py"), role("lib/x.py"), role("plugins/p.py")), (Role::Dags, Role::Module, Role::Plugin));
        assert_eq!((role("packed.zip"), role("a/b/load.sql")), (Role::Dags, Role::Data));
    }

    #[test]
    fn links_are_followed_and_loops_are_told() {
        let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let root = folder.path();
        write(other.path(), "shared/x.py", "");
        write(root, "a/y.py", "");
        symlink(other.path().join("shared"), root.join("shared")).expect("a link");
        symlink(other.path().join("shared/x.py"), root.join("x.py")).expect("a link");
        symlink(root, root.join("a/loop")).expect("a link");
        symlink("nowhere", root.join("dangling.py")).expect("a link");
        let scan = look(root);
        assert_eq!(names(&scan), ["a/y.py", "shared/x.py", "x.py"]);
        let mut told: Vec<_> = scan.invalid.iter().map(|fault| (fault.file.as_str(), fault.message.as_str())).collect();
        told.sort_unstable();
        assert_eq!(told[0], ("a/loop", "the link leads back to a folder above it"));
        assert_eq!(told[1], ("dangling.py", "the link leads nowhere: no such file or directory"));
        assert!(scan.hides("a/loop/a/y.py") && scan.hides("dangling.py") && !scan.hides("a/loops"));
    }

    #[test]
    fn a_folder_that_is_gone_is_not_an_empty_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let patterns = Patterns::new(&[]).expect("patterns");
        let gone = scan(&folder.path().join("gone"), &patterns, &mut Nobody);
        assert!(matches!(gone, Err(ScanError::Missing)));
        write(folder.path(), "file", "");
        assert!(matches!(scan(&folder.path().join("file"), &patterns, &mut Nobody), Err(ScanError::Missing)));
        assert!(look(folder.path()).files.len() == 1);
    }

    #[test]
    fn folders_are_absolute() {
        assert_eq!(normal("/a//b/./c/"), Some(PathBuf::from("/a/b/c")));
        assert_eq!((normal("a/b"), normal("/a/../b"), normal("")), (None, None, None));
    }
}
