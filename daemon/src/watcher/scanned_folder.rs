//! A scan of the folder with its contents: files whose stamp has not changed are not read again.

use std::{
    io::{self, Read},
    path::Path,
    time::Duration,
};

use airflow_serverless_api::watch::InvalidFile;
use chrono::Utc;
use sha2::{Digest as _, Sha256};

use super::{
    debounce::QUIET,
    directory_watcher::DirectoryWatcher,
    imports::imports,
    local::{Local, Locals, Role},
    rules::{MAX_FILE_BYTES, Rules},
    scan::{Identity, Scan, ScanError, plain, scan},
};
use crate::{
    model::{Digest, Name, Record, Records, Stamp},
    regular_file,
};

/// Bytes of content kept from the scan to the upload; files beyond that are read a second time.
const MOST_BYTES_KEPT: usize = 16 << 20;

/// What is in the folder.
pub struct ScannedFolder {
    pub identity: Identity,
    pub locals: Locals,
    /// Contents of files that were read, as many as fit.
    pub contents: Vec<(Name, Vec<u8>)>,
    pub invalid: Vec<InvalidFile>,
    scan: Scan,
    /// Time since the last change of a file.
    pub quiet_for: Duration,
}

impl ScannedFolder {
    /// Whether a file changed so recently that it may still be being written.
    pub fn has_recent_changes(&self) -> bool {
        self.quiet_for < QUIET
    }

    /// Whether a file with this path could exist unseen.
    pub fn hides(&self, path: &str) -> bool {
        self.scan.hides(path)
    }
}

/// Scans the folder; blocking. Reads only files that differ from the last scan and from the records.
pub fn scan_contents(
    root: &Path,
    rules: &Rules,
    directory: &mut DirectoryWatcher,
    (last, records): (&Locals, &Records),
) -> Result<ScannedFolder, ScanError> {
    directory.begin_scan();
    let scanned = scan(root, rules, directory);
    directory.finish_scan(scanned.is_ok());
    let mut scan = scanned?;
    let (mut locals, mut contents, mut kept) = (Locals::new(), Vec::new(), 0);
    let now = now();
    let newest = scan.files.values().map(|found| found.stamp.changed).max().unwrap_or_default();
    for (name, found) in std::mem::take(&mut scan.files) {
        if let Some(local) = known(&name, found.stamp, found.role, last, records) {
            locals.insert(name, local);
            continue;
        }
        match read(&root.join(&*name)) {
            Ok((stamp, content)) => {
                let (sha256, imports) = (digest(&content), imports(&name, &content));
                locals.insert(name.clone(), Local { stamp, sha256, imports, role: found.role });
                let is_recorded = records.get(&name).is_some_and(|record| record.sha256 == Some(sha256));
                if !is_recorded && kept + content.len() <= MOST_BYTES_KEPT {
                    kept += content.len();
                    contents.push((name, content));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let message = format!("it cannot be read: {}", plain(&error));
                scan.invalid.push(InvalidFile { file: name.to_string(), line: None, message });
                scan.hidden.push(name.to_string());
            }
        }
    }
    // A modification time in the future does not count as a recent change.
    let quiet_for = u64::try_from(now.saturating_sub(newest)).map_or(Duration::MAX, Duration::from_nanos);
    let invalid = std::mem::take(&mut scan.invalid);
    Ok(ScannedFolder { identity: scan.identity, locals, contents, invalid, scan, quiet_for })
}

fn known(name: &Name, stamp: Stamp, role: Role, last: &Locals, records: &Records) -> Option<Local> {
    if let Some(local) = last.get(name).filter(|local| local.stamp == stamp) {
        return Some(Local { role, ..local.clone() });
    }
    let Record { sha256, imports, .. } = records.get(name).filter(|record| record.stamp == stamp)?;
    Some(Local { stamp, sha256: (*sha256)?, imports: imports.clone(), role })
}

pub fn digest(content: &[u8]) -> Digest {
    Sha256::digest(content).into()
}

/// Reads a file. Its stamp belongs to exactly this content, or equals no other stamp.
pub fn read(path: &Path) -> io::Result<(Stamp, Vec<u8>)> {
    let (file, metadata) = regular_file::open(path)?;
    let before = Stamp::of(&metadata);
    let mut content = Vec::with_capacity(usize::try_from(before.size.min(MAX_FILE_BYTES)).unwrap_or_default());
    (&file).take(MAX_FILE_BYTES + 1).read_to_end(&mut content)?;
    let after = Stamp::of(&file.metadata()?);
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other("it grows beyond what can be uploaded"));
    }
    let stamp = if before == after { after.read_at(now()) } else { Stamp { changed: i64::MIN, ..after } };
    Ok((stamp, content))
}

/// Whether a file is still the one that was read, according to its stamp.
pub fn is_still(path: &Path, stamp: Stamp) -> bool {
    path.metadata().is_ok_and(|metadata| {
        let found = Stamp::of(&metadata);
        // Without a reliable change time, the other fields are compared.
        let changed = if stamp.changed == i64::MIN { i64::MIN } else { found.changed };
        Stamp { changed, ..found } == stamp
    })
}

fn now() -> i64 {
    Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX)
}
