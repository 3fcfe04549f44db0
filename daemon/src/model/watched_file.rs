//! Records of files: their local state, and what was uploaded.

use std::{collections::BTreeMap, fs::Metadata, os::unix::fs::MetadataExt, sync::Arc, time::Duration};

/// SHA-256 of a content.
pub type Digest = [u8; 32];

/// A path relative to the folder, with slashes, as on the Volume below `dags/`.
pub type Name = Arc<str>;

/// Resolution of file times: changes within some milliseconds may get the same one.
const CLOCK_STEP: Duration = Duration::from_millis(50);

/// Detects a changed file without reading its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    pub size: u64,
    /// Nanoseconds since the epoch.
    pub modified: i64,
    /// Change time of content or attributes; programs cannot set it back.
    pub changed: i64,
    pub inode: u64,
}

impl Stamp {
    pub fn of(metadata: &Metadata) -> Self {
        let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Self {
            size: metadata.len(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        }
    }

    /// Returns the stamp of a file that was read at `now` (nanoseconds since the epoch). It equals no other stamp if
    /// the file changed so shortly before that another change could go unnoticed.
    pub fn read_at(self, now: i64) -> Self {
        let step = i64::try_from(CLOCK_STEP.as_nanos()).unwrap_or(i64::MAX);
        if self.changed > now.saturating_sub(step) { Self { changed: i64::MIN, ..self } } else { self }
    }
}

/// The record of an uploaded file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// `None` while the first upload may be under way.
    pub sha256: Option<Digest>,
    /// Stamp of the local file with that content.
    pub stamp: Stamp,
    pub imports: Box<str>,
    /// Seconds since the epoch.
    pub uploaded_at: i64,
    /// The modification time on the Volume, in seconds since the epoch, once known.
    pub on_volume: Option<i64>,
}

pub type Records = BTreeMap<Name, Record>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_changed_just_before_the_read_is_read_again() {
        let stamp = Stamp { size: 1, modified: 5, changed: 1_000_000_000, inode: 7 };
        assert_eq!(stamp.read_at(2_000_000_000), stamp);
        assert_ne!(stamp.read_at(1_001_000_000), stamp);
    }
}
