//! Putting files into a Volume's folder; blocking.

use std::{
    collections::{HashSet, VecDeque},
    fs::{self, File},
    io::{self, Seek, SeekFrom},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use crate::{
    error::Error,
    files::{FEW, sync_file_system},
    ids::new_id,
};

/// The size of the blocks in which files are uploaded and downloaded; the SDK relies on it.
pub const BLOCK_BYTES: u64 = 8 << 20;

/// The contents of a file.
pub enum Contents {
    /// A copy of a file.
    Whole(PathBuf),
    /// Blocks that may omit trailing zeros, and the size of the file.
    Blocks(Vec<PathBuf>, u64),
    /// A symbolic link.
    Link(PathBuf),
}

/// A file to create.
pub struct Placement {
    pub target: PathBuf,
    pub contents: Contents,
    /// Unix permissions.
    pub mode: u32,
}

/// Creates files: all of them, or none if one fails. Each is created atomically, and all are durable in the end. `root`
/// is the folder of the Volume.
pub fn place(root: &Path, wanted: Vec<Placement>) -> Result<(), Error> {
    let mut replacement = Replacement::begin(root, wanted.len());
    for file in wanted {
        let shown = file.target.strip_prefix(root).unwrap_or(&file.target).to_string_lossy().into_owned();
        replacement.stage(file).map_err(Error::io("save", shown))?;
    }
    replacement.finish().map_err(Error::io("save", "the files"))
}

/// Files that will replace others: all new contents reach the disk before the first name does.
struct Replacement<'a> {
    root: &'a Path,
    /// The temporary files, and their final paths.
    staged: VecDeque<(PathBuf, PathBuf)>,
    /// Whether the whole file system is synced: quicker for many files, and simpler for new folders.
    at_once: bool,
}

impl<'a> Replacement<'a> {
    fn begin(root: &'a Path, count: usize) -> Self {
        Self { root, staged: VecDeque::with_capacity(count), at_once: count > FEW }
    }

    fn stage(&mut self, file: Placement) -> io::Result<()> {
        let folder = file.target.parent().unwrap_or(self.root);
        if !folder.is_dir() {
            fs::create_dir_all(folder)?;
            self.at_once = true;
        }
        let partial = folder.join(format!(".{}.partial", new_id("put")));
        self.staged.push_back((partial.clone(), file.target));
        match file.contents {
            Contents::Link(to) => symlink(to, partial),
            Contents::Whole(from) => copy_pieces(&[from], None, file.mode, &partial),
            Contents::Blocks(blocks, size) => copy_pieces(&blocks, Some(size), file.mode, &partial),
        }
    }

    /// Renames all staged files to their final paths.
    fn finish(mut self) -> io::Result<()> {
        if self.at_once {
            sync_file_system(self.root)?;
        } else {
            // A link has no contents of its own.
            let files = self.staged.iter().filter(|(partial, _)| !partial.is_symlink());
            files.map(|(partial, _)| partial).try_for_each(|partial| File::open(partial)?.sync_all())?;
        }
        let mut folders = HashSet::new();
        while let Some((partial, target)) = self.staged.front() {
            fs::rename(partial, target)?;
            folders.extend(target.parent().map(Path::to_owned));
            self.staged.pop_front();
        }
        if self.at_once {
            return sync_file_system(self.root);
        }
        folders.iter().try_for_each(|folder| File::open(folder)?.sync_all())
    }
}

impl Drop for Replacement<'_> {
    fn drop(&mut self) {
        for (partial, _) in &self.staged {
            // The original error is the one to report; a temporary file that stays is harmless.
            let _ = fs::remove_file(partial);
        }
    }
}

fn copy_pieces(pieces: &[PathBuf], size: Option<u64>, mode: u32, to: &Path) -> io::Result<()> {
    let mut file = File::create_new(to)?;
    let mut at = 0;
    for piece in pieces {
        file.seek(SeekFrom::Start(at))?;
        io::copy(&mut File::open(piece)?, &mut file)?;
        at += BLOCK_BYTES;
    }
    if let Some(size) = size {
        file.set_len(size)?;
    }
    file.set_permissions(fs::Permissions::from_mode(mode & 0o777))
}
