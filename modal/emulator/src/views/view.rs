//! One container's copy of one Volume; all blocking.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{error::Error, files, ids::new_id, volumes::is_partial};

/// The attributes that show whether a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    mode: u32,
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        // A folder changes with its contents, which are compared on their own.
        let (inode, size, changed) =
            if meta.is_dir() { (0, 0, (0, 0)) } else { (meta.ino(), meta.len(), (meta.mtime(), meta.mtime_nsec())) };
        Self { inode, size, mode: meta.mode(), changed }
    }
}

type Listing = BTreeMap<PathBuf, Stamp>;

/// A copy of a Volume, with the state of both sides when they were last the same.
pub struct View {
    pub folder: PathBuf,
    committed: PathBuf,
    /// By path: the file here, and the one in the Volume.
    known: BTreeMap<PathBuf, (Stamp, Stamp)>,
    /// Whether the container has ended. Its folder may be removed then, which is no change.
    pub closed: bool,
}

impl View {
    /// Copies a Volume.
    pub fn create(folder: PathBuf, committed: PathBuf) -> Result<Self, Error> {
        let mut view = Self { folder, committed, known: BTreeMap::new(), closed: false };
        fs::create_dir_all(&view.folder).map_err(failed("copy"))?;
        view.refresh()?;
        Ok(view)
    }

    /// Commits the changes into the Volume. If several containers changed the same file, the last commit wins.
    pub fn commit(&mut self) -> Result<(), Error> {
        self.list().and_then(|here| self.publish(&here)).map_err(failed("commit"))
    }

    /// The same; returns which process has which file of this copy open, or works in which of its folders, if any does.
    pub fn commit_and_find_open(&mut self) -> Result<Option<String>, Error> {
        let here = self.list().map_err(failed("commit"))?;
        self.publish(&here).map_err(failed("commit"))?;
        self.find_open(&here).map_err(failed("find open files of"))
    }

    /// The files of this copy; none if the container has ended.
    fn list(&self) -> io::Result<Listing> {
        if self.closed { Ok(Listing::new()) } else { list(&self.folder) }
    }

    fn publish(&mut self, here: &Listing) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        // The contents of a folder are removed before the folder.
        let removed: Vec<_> = self.known.keys().rev().filter(|path| !here.contains_key(*path)).cloned().collect();
        let changed: Vec<_> = here
            .iter()
            .filter(|(path, stamp)| self.known.get(*path).is_none_or(|(before, _)| before != *stamp))
            .map(|(path, stamp)| (path.clone(), *stamp))
            .collect();
        if removed.is_empty() && changed.is_empty() {
            return Ok(());
        }
        for path in removed {
            remove(&self.committed.join(&path))?;
            self.known.remove(&path);
        }
        for (path, stamp) in changed {
            let target = self.committed.join(&path);
            match replace(&self.folder.join(&path), &target) {
                Ok(()) => {}
                // It was removed here after it was listed; the next commit records that.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            let there = Stamp::of(&target.symlink_metadata()?);
            self.known.insert(path, (stamp, there));
        }
        files::sync_file_system(&self.committed)
    }

    /// Shows the present contents of the Volume. Meanwhile the folder is empty, as the mount of a Volume is on Modal.
    /// All changes have to be committed before.
    pub fn refresh(&mut self) -> Result<(), Error> {
        self.reread().map_err(failed("reload"))
    }

    fn reread(&mut self) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let aside = self.set_aside()?;
        self.fill(&aside)?;
        fs::remove_dir_all(&aside)
    }

    /// Empties the folder; returns where its contents are now.
    fn set_aside(&self) -> io::Result<PathBuf> {
        let aside = self.folder.with_file_name(new_id("aside"));
        fs::create_dir(&aside)?;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            fs::rename(entry.path(), aside.join(entry.file_name()))?;
        }
        Ok(aside)
    }

    /// Fills the folder with the contents of the Volume. Unchanged ones are taken from `aside`.
    fn fill(&mut self, aside: &Path) -> io::Result<()> {
        let known = std::mem::take(&mut self.known);
        let committed = list(&self.committed)?;
        let touched = touched_folders(&known, &committed);
        let mut moved: Option<PathBuf> = None;
        for (path, there) in committed {
            let same = known.get(&path).filter(|(_, before)| *before == there).copied();
            if let Some(same) = same.filter(|_| moved.as_ref().is_some_and(|folder| path.starts_with(folder))) {
                self.known.insert(path, same);
                continue;
            }
            let target = self.folder.join(&path);
            // An unchanged file or folder is moved, neither copied nor created.
            let is_untouched = same.is_some() && !touched.contains(&path);
            if is_untouched && fs::rename(aside.join(&path), &target).is_ok() {
                moved = Some(path.clone());
            } else {
                replace(&self.committed.join(&path), &target)?;
            }
            let here = Stamp::of(&target.symlink_metadata()?);
            self.known.insert(path, (here, there));
        }
        Ok(())
    }

    fn find_open(&self, here: &Listing) -> io::Result<Option<String>> {
        if self.closed {
            return Ok(None);
        }
        let meta = self.folder.metadata()?;
        let mut ours = HashMap::from([(meta.ino(), Path::new("."))]);
        for (path, stamp) in here {
            let is_folder = stamp.inode == 0;
            let inode = if is_folder { inode(&self.folder.join(path))? } else { Some(stamp.inode) };
            ours.extend(inode.map(|inode| (inode, path.as_path())));
        }
        let is_process =
            |entry: &fs::DirEntry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        let mut processes = fs::read_dir("/proc")?.filter_map(Result::ok).filter(is_process);
        Ok(processes.find_map(|process| find_used(&process.path(), meta.dev(), &ours)))
    }
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> Error {
    Error::io(action, "a container's Volume")
}

/// `None` if it was removed meanwhile.
fn inode(path: &Path) -> io::Result<Option<u64>> {
    match path.symlink_metadata() {
        Ok(meta) => Ok(Some(meta.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Which of these files a process has open, or in which of these folders it works. `process` is its folder in `/proc`.
/// Those of other users cannot be read, and have none of these files open.
fn find_used(process: &Path, device: u64, ours: &HashMap<u64, &Path>) -> Option<String> {
    let find = |path: PathBuf| {
        let meta = path.metadata().ok().filter(|meta| meta.dev() == device)?;
        ours.get(&meta.ino()).map(|found| found.display())
    };
    // It may have ended meanwhile.
    let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
    let process_id = process.file_name().unwrap_or_default().display();
    let who = || format!("process {process_id} ({})", command.trim_end());
    let mut open = fs::read_dir(process.join("fd")).into_iter().flatten().filter_map(Result::ok);
    open.find_map(|entry| find(entry.path()))
        .map(|path| format!("path {path} is open in {}", who()))
        .or_else(|| find(process.join("cwd")).map(|path| format!("{} works in the folder {path}", who())))
}

/// All contents of a folder by their paths in it, a folder before its contents.
fn list(folder: &Path) -> io::Result<Listing> {
    let mut found = Listing::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(inside) = folders.pop() {
        for entry in fs::read_dir(folder.join(&inside))? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(is_partial) {
                continue;
            }
            let path = inside.join(entry.file_name());
            // A file that disappears during the listing is left out.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                folders.push(path.clone());
            }
            if meta.is_dir() || meta.is_file() || meta.is_symlink() {
                found.insert(path, Stamp::of(&meta));
            }
        }
    }
    Ok(found)
}

/// Folders that differ from the Volume at any depth.
fn touched_folders(known: &BTreeMap<PathBuf, (Stamp, Stamp)>, committed: &Listing) -> HashSet<PathBuf> {
    let came = committed.iter().filter(|(path, there)| known.get(*path).is_none_or(|(_, before)| before != *there));
    let gone = known.keys().filter(|path| !committed.contains_key(*path));
    let mut touched = HashSet::new();
    for path in came.map(|(path, _)| path).chain(gone) {
        for folder in path.ancestors().skip(1) {
            if !touched.insert(folder.to_owned()) {
                break;
            }
        }
    }
    touched
}

/// Makes `target` a copy of `source`: a file or link with its contents, a folder without.
fn replace(source: &Path, target: &Path) -> io::Result<()> {
    let meta = source.symlink_metadata()?;
    let is_folder = target.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    if meta.is_dir() && is_folder {
        return fs::set_permissions(target, meta.permissions());
    }
    if meta.is_dir() {
        remove(target)?;
        fs::create_dir_all(target)?;
        return fs::set_permissions(target, meta.permissions());
    }
    if is_folder {
        fs::remove_dir_all(target)?;
    }
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    let partial = target.with_file_name(format!(".{}.partial", new_id("put")));
    if meta.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(source)?, &partial)?;
    } else {
        fs::copy(source, &partial)?;
    }
    fs::rename(&partial, target)
}

/// Removes a file, or a folder that is empty.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Volume(tempfile::TempDir);

    impl Volume {
        fn view(&self, name: &str) -> View {
            fs::create_dir_all(self.0.path().join("volume")).unwrap();
            View::create(self.0.path().join(name), self.0.path().join("volume")).unwrap()
        }
        fn committed(&self, path: &str) -> Option<String> {
            fs::read_to_string(self.0.path().join("volume").join(path)).ok()
        }
    }

    #[test]
    fn changes_are_visible_only_after_commit_and_reload() {
        let volume = Volume(tempfile::tempdir().unwrap());
        let (mut one, mut two) = (volume.view("one"), volume.view("two"));
        fs::create_dir(one.folder.join("d")).unwrap();
        fs::write(one.folder.join("d/a"), "one").unwrap();
        assert_eq!(volume.committed("d/a"), None);
        one.commit().unwrap();
        assert_eq!(volume.committed("d/a").as_deref(), Some("one"));
        assert!(!two.folder.join("d").exists());
        two.commit().unwrap();
        two.refresh().unwrap();
        assert_eq!(fs::read_to_string(two.folder.join("d/a")).unwrap(), "one");

        // Each changes its own file; neither undoes the change of the other.
        fs::write(one.folder.join("x"), "from one").unwrap();
        fs::write(two.folder.join("y"), "from two").unwrap();
        one.commit().unwrap();
        two.commit().unwrap();
        assert_eq!(
            (volume.committed("x").as_deref(), volume.committed("y").as_deref()),
            (Some("from one"), Some("from two"))
        );

        // The last one to commit wins a file; removals are changes too.
        fs::write(one.folder.join("d/a"), "first").unwrap();
        fs::write(two.folder.join("d/a"), "last").unwrap();
        one.commit().unwrap();
        two.commit().unwrap();
        assert_eq!(volume.committed("d/a").as_deref(), Some("last"));
        fs::remove_dir_all(two.folder.join("d")).unwrap();
        two.commit().unwrap();
        assert_eq!(volume.committed("d/a"), None);
        one.refresh().unwrap();
        assert!(!one.folder.join("d").exists());
    }

    #[test]
    fn folder_is_empty_during_a_refresh() {
        let volume = Volume(tempfile::tempdir().unwrap());
        let mut view = volume.view("one");
        fs::create_dir(view.folder.join("d")).unwrap();
        fs::write(view.folder.join("d/a"), "text").unwrap();
        view.commit().unwrap();
        let aside = view.set_aside().unwrap();
        assert_eq!(fs::read_dir(&view.folder).unwrap().count(), 0);
        view.fill(&aside).unwrap();
        assert_eq!(fs::read_to_string(view.folder.join("d/a")).unwrap(), "text");
    }

    #[test]
    fn refresh_replaces_only_files_changed_by_others() {
        let volume = Volume(tempfile::tempdir().unwrap());
        let (mut one, mut two) = (volume.view("one"), volume.view("two"));
        for path in ["same/deep/a", "mixed/deep/b", "mixed/other/c", "gone/d"] {
            fs::create_dir_all(one.folder.join(path).parent().unwrap()).unwrap();
            fs::write(one.folder.join(path), "one").unwrap();
        }
        one.commit().unwrap();
        two.refresh().unwrap();
        fs::write(two.folder.join("mixed/deep/b"), "two").unwrap();
        fs::write(two.folder.join("mixed/new"), "two").unwrap();
        fs::remove_dir_all(two.folder.join("gone")).unwrap();
        two.commit().unwrap();

        let inode = |view: &View, path: &str| view.folder.join(path).metadata().unwrap().ino();
        let before = ["same", "same/deep/a", "mixed/other", "mixed/other/c"].map(|path| inode(&one, path));
        // Written after the last commit: the next one keeps it.
        fs::write(one.folder.join("same/deep/e"), "late").unwrap();
        one.refresh().unwrap();
        assert_eq!(before, ["same", "same/deep/a", "mixed/other", "mixed/other/c"].map(|path| inode(&one, path)));
        assert_eq!(fs::read_to_string(one.folder.join("mixed/deep/b")).unwrap(), "two");
        assert!(one.folder.join("mixed/new").exists() && !one.folder.join("gone").exists());
        one.commit().unwrap();
        assert_eq!(volume.committed("same/deep/e").as_deref(), Some("late"));
        assert_eq!(volume.committed("mixed/deep/b").as_deref(), Some("two"));
    }

    #[test]
    fn open_files_are_reported() {
        let volume = Volume(tempfile::tempdir().unwrap());
        let mut view = volume.view("one");
        let file = fs::File::create(view.folder.join("open")).unwrap();
        let found = view.commit_and_find_open().unwrap().unwrap();
        assert!(found.starts_with(&format!("path open is open in process {} (", std::process::id())), "{found}");
        drop(file);
        assert_eq!(view.commit_and_find_open().unwrap(), None);
    }
}
