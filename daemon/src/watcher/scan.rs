//! Lists the files of the folder without reading them.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use airflow_serverless_api::watch::InvalidFile;

use super::{
    links::resolve,
    local::Role,
    rules::{self, IGNORE_FILE, Ignores, Rules},
};
use crate::{
    airflow::PLUGINS,
    model::{Name, Stamp},
    regular_file,
};

/// Limit on files, and on folders. A larger folder does not hold DAGs: somebody watches a home directory.
const MOST_FILES: usize = 100_000;
const DEEPEST: usize = 64;

const TO_OWN_FILES: &str = "the link leads to files of the daemon";

/// Identifies a file or folder independently of its name: device, inode number (which can be reused after a removal)
/// and creation time (seconds and nanoseconds since the epoch, if the file system has it).
pub type Identity = (u64, u64, (u64, u32));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub stamp: Stamp,
    pub role: Role,
}

/// The files in the folder.
#[derive(Debug)]
pub struct Scan {
    pub identity: Identity,
    pub files: BTreeMap<Name, Found>,
    /// Entries that cannot be uploaded as they are.
    pub invalid: Vec<InvalidFile>,
    /// Paths that could not be read: earlier files below them may still exist.
    pub hidden: Vec<String>,
}

impl Scan {
    /// Whether a file with this path could exist unseen.
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
    #[error("the folder is a link to one with files of the daemon")]
    Own,
    #[error("there are more than {MOST_FILES} files or folders: watch a folder that has only DAGs and what they need")]
    TooMany,
    #[error("there are more than {MOST_FILES} files or folders, with those behind the link {0}: link to fewer")]
    TooManyBehind(String),
}

/// Learns which folders a scan depends on, each before it is read. The paths have no links.
pub trait Visitor {
    /// A folder whose files belong on the Volume.
    fn folder(&mut self, path: &Path, identity: Identity);
    /// An entry of a folder on the way to the root or to the target of a link, whether it exists or not.
    fn step(&mut self, folder: &Path, name: &OsStr);
}

/// Lists all files below the folder. Follows links wherever they lead.
pub fn scan(root: &Path, rules: &Rules, visitor: &mut dyn Visitor) -> Result<Scan, ScanError> {
    let is_absence = |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    let failed = |error| if is_absence(&error) { ScanError::Missing } else { ScanError::Read(error) };
    let real = resolve(Path::new("/"), root, visitor).map_err(failed)?;
    let metadata = fs::metadata(&real).map_err(failed)?;
    if !metadata.is_dir() {
        return Err(ScanError::Missing);
    }
    if rules.has_own_files(&real) {
        return Err(ScanError::Own);
    }
    let identity = identity(&metadata);
    let scan = Scan { identity, files: BTreeMap::new(), invalid: Vec::new(), hidden: Vec::new() };
    let mut walk = Walk { rules, visitor, ignores: Ignores::default(), above: Vec::new(), folders: 0, scan };
    walk.folder(Place { path: root, real: &real, name: "" }, identity, false).map_err(|error| match error {
        FolderError::Read(error) => failed(error),
        FolderError::TooMany(None) => ScanError::TooMany,
        FolderError::TooMany(Some(link)) => ScanError::TooManyBehind(link),
    })?;
    Ok(walk.scan)
}

pub fn identity(metadata: &Metadata) -> Identity {
    let made = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    (metadata.dev(), metadata.ino(), (made.as_secs(), made.subsec_nanos()))
}

/// Where a folder or file is.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// From the root as the user gave it.
    path: &'a Path,
    /// Without links.
    real: &'a Path,
    /// Path below the root.
    name: &'a str,
}

struct Walk<'a> {
    rules: &'a Rules,
    visitor: &'a mut dyn Visitor,
    ignores: Ignores,
    /// The folders from the root down to here.
    above: Vec<(PathBuf, Identity)>,
    /// How many were entered.
    folders: usize,
    scan: Scan,
}

enum FolderError {
    Read(io::Error),
    /// The folder is too large; names the link that leads to it, if any.
    TooMany(Option<String>),
}

impl Walk<'_> {
    fn folder(&mut self, place: Place<'_>, identity: Identity, ignored: bool) -> Result<(), FolderError> {
        self.folders += 1;
        self.check_limit()?;
        // Watch before reading, so that no change in between is missed.
        self.visitor.folder(place.real, identity);
        let entries = fs::read_dir(place.real).map_err(FolderError::Read)?;
        let outer = self.ignores.len();
        if let Some(text) = self.ignore_file(place.real) {
            self.ignores.push(place.path, &text);
        }
        self.above.push((place.real.to_owned(), identity));
        let walked = entries.into_iter().try_for_each(|entry| {
            let entry = entry.map_err(FolderError::Read)?;
            self.entry(&entry, place, ignored)
        });
        self.above.pop();
        self.ignores.truncate(outer);
        walked
    }

    /// Returns the text of the `.airflowignore` in a folder. Errors are reported with its entry.
    fn ignore_file(&self, folder: &Path) -> Option<String> {
        let path = folder.join(IGNORE_FILE).canonicalize().ok()?;
        if self.rules.has_own_files(&path) { None } else { regular_file::read_text(&path, rules::MAX_FILE_BYTES).ok() }
    }

    fn check_limit(&self) -> Result<(), FolderError> {
        let counts = [self.scan.files.len(), self.scan.invalid.len(), self.folders];
        if counts.iter().any(|count| *count > MOST_FILES) { Err(FolderError::TooMany(None)) } else { Ok(()) }
    }

    fn entry(&mut self, entry: &fs::DirEntry, folder: Place<'_>, ignored: bool) -> Result<(), FolderError> {
        let name = entry.file_name();
        let shown = name.to_string_lossy();
        if !rules::is_of_use(&shown) {
            return Ok(());
        }
        let path = folder.path.join(&name);
        let below = if folder.name.is_empty() { shown.to_string() } else { format!("{}/{shown}", folder.name) };
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let found = match is_link {
            true => resolve(folder.real, Path::new(&name), self.visitor)
                .and_then(|real| fs::symlink_metadata(&real).map(|metadata| (real, metadata))),
            false => entry.metadata().map(|metadata| (entry.path(), metadata)),
        };
        let (real, metadata) = match found {
            Ok(found) => found,
            // It was just removed.
            Err(error) if !is_link && error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                let what = if is_link { "the link leads nowhere" } else { "it cannot be read" };
                self.unseen(below, format!("{what}: {}", plain(&error)));
                return self.check_limit();
            }
        };
        let place = Place { path: &path, real: &real, name: &below };
        if metadata.is_dir() {
            return self.subfolder(place, is_link, &metadata, ignored);
        }
        if !rules::is_passing_file(&shown) && self.rules.patterns.allow(&below) {
            if is_link && self.rules.has_own_files(&real) {
                self.unseen(below, TO_OWN_FILES.to_owned());
            } else if let Some(objection) = regular_file::objection(metadata.file_type()) {
                self.unseen(below, objection.to_owned());
            } else {
                self.file(&path, &below, name.to_str().is_none(), &metadata, ignored);
            }
        }
        self.check_limit()
    }

    fn subfolder(
        &mut self,
        place: Place<'_>,
        is_link: bool,
        metadata: &Metadata,
        ignored: bool,
    ) -> Result<(), FolderError> {
        let identity = identity(metadata);
        let is_above = |(real, known): &(PathBuf, Identity)| *known == identity || real.starts_with(place.real);
        let refusal = if self.above.iter().any(is_above) {
            Some("the link leads back to a folder above it")
        } else if is_link && self.rules.has_own_files(place.real) {
            Some(TO_OWN_FILES)
        } else if self.above.len() >= DEEPEST {
            Some("it is in too many folders")
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.unseen(place.name.to_owned(), refusal.to_owned());
            return self.check_limit();
        }
        if rules::is_virtual_environment(place.real) {
            return Ok(());
        }
        let ignored = ignored || self.ignores.ignore(place.path, true);
        match self.folder(place, identity, ignored) {
            // The folder or a part of it was just removed.
            Err(FolderError::Read(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(FolderError::Read(error)) => {
                self.unseen(place.name.to_owned(), format!("the folder cannot be read: {}", plain(&error)));
                Ok(())
            }
            Err(FolderError::TooMany(None)) if is_link => Err(FolderError::TooMany(Some(place.name.to_owned()))),
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

    /// Records an entry that exists but cannot be uploaded, so that an earlier version does not count as removed.
    fn unseen(&mut self, file: String, message: String) {
        self.scan.invalid.push(InvalidFile { file: file.clone(), line: None, message });
        self.scan.hidden.push(file);
    }
}

/// Formats an error of the system without its number.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// A visitor that ignores everything.
pub struct Nobody;

impl Visitor for Nobody {
    fn folder(&mut self, _path: &Path, _identity: Identity) {}
    fn step(&mut self, _folder: &Path, _name: &OsStr) {}
}

/// Normalizes the folder given by the user; `None` if it is not absolute or contains `..`.
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

    fn scan_all(root: &Path) -> Scan {
        scan(root, &Rules::default(), &mut Nobody).expect("a scan")
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
    fn scan_finds_dags_modules_plugins_and_data() {
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
        let scan = scan_all(root);
        assert_eq!(names(&scan), kept);
        assert!(scan.invalid.is_empty(), "{:?}", scan.invalid);
        let role = |name: &str| scan.files[name].role;
        assert_eq!((role("etl.py"), role("lib/x.py"), role("plugins/p.py")), (Role::Dags, Role::Module, Role::Plugin));
        assert_eq!((role("packed.zip"), role("a/b/load.sql")), (Role::Dags, Role::Data));
    }

    #[test]
    fn links_are_followed_and_loops_reported() {
        let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let root = folder.path();
        write(other.path(), "shared/x.py", "");
        write(root, "a/y.py", "");
        symlink(other.path().join("shared"), root.join("shared")).expect("a link");
        symlink(other.path().join("shared/x.py"), root.join("x.py")).expect("a link");
        symlink(root, root.join("a/loop")).expect("a link");
        symlink("nowhere", root.join("dangling.py")).expect("a link");
        let scan = scan_all(root);
        assert_eq!(names(&scan), ["a/y.py", "shared/x.py", "x.py"]);
        let mut told: Vec<_> = scan.invalid.iter().map(|fault| (fault.file.as_str(), fault.message.as_str())).collect();
        told.sort_unstable();
        assert_eq!(told[0], ("a/loop", "the link leads back to a folder above it"));
        assert_eq!(told[1], ("dangling.py", "the link leads nowhere: no such file or directory"));
        assert!(scan.hides("a/loop/a/y.py") && scan.hides("dangling.py") && !scan.hides("a/loops"));
    }

    #[test]
    fn links_to_parents_loops_and_daemon_files_are_refused() {
        let (folder, data) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let root = folder.path().join("dags");
        write(&root, "etl.py", "");
        write(data.path(), "state/registry.db", "");
        symlink("/", root.join("all")).expect("a link");
        symlink("..", root.join("up")).expect("a link");
        symlink("circle", root.join("circle")).expect("a link");
        symlink(data.path(), root.join("data")).expect("a link");
        symlink(data.path().join("state"), root.join("state")).expect("a link");
        let own = [data.path().join("state").canonicalize().expect("a folder")].into();
        let scan = scan(&root, &Rules { own, ..Rules::default() }, &mut Nobody).expect("a scan");
        assert_eq!(names(&scan), ["etl.py"]);
        let mut told: Vec<_> = scan.invalid.iter().map(|fault| (fault.file.as_str(), fault.message.as_str())).collect();
        told.sort_unstable();
        let (above, own) = ("the link leads back to a folder above it", "the link leads to files of the daemon");
        let circle = "the link leads nowhere: too many levels of symbolic links";
        assert_eq!(told, [("all", above), ("circle", circle), ("data", own), ("state", own), ("up", above)]);
    }

    /// Each folder has two links to the next one, so the number of paths doubles with each.
    #[test]
    fn too_many_files_are_refused_naming_the_link() {
        let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        for number in 0..20 {
            let here = other.path().join(number.to_string());
            fs::create_dir(&here).expect("a folder");
            for name in ["a", "b"] {
                symlink(format!("../{}", number + 1), here.join(name)).expect("a link");
            }
        }
        fs::create_dir(other.path().join("20")).expect("a folder");
        fs::create_dir(folder.path().join("team")).expect("a folder");
        symlink(other.path().join("0"), folder.path().join("team/many")).expect("a link");
        let error = scan(folder.path(), &Rules::default(), &mut Nobody).expect_err("too many");
        let message = error.to_string();
        assert!(
            message.starts_with("there are more than 100000 files or folders, with those behind the link "),
            "{message}"
        );
        assert!(message.contains(" team/many/"), "{message}");
    }

    #[test]
    fn missing_folder_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let rules = Rules::default();
        let gone = scan(&folder.path().join("gone"), &rules, &mut Nobody);
        assert!(matches!(gone, Err(ScanError::Missing)));
        write(folder.path(), "file", "");
        assert!(matches!(scan(&folder.path().join("file"), &rules, &mut Nobody), Err(ScanError::Missing)));
        assert!(scan_all(folder.path()).files.len() == 1);
    }

    #[test]
    fn relative_folders_are_refused() {
        assert_eq!(normal("/a//b/./c/"), Some(PathBuf::from("/a/b/c")));
        assert_eq!((normal("a/b"), normal("/a/../b"), normal("")), (None, None, None));
    }
}
