//! What containers print.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    time::{Duration, Instant},
};

use modal_proto::{self as pb, FileDescriptor};

use super::{Answers, Parts, seconds};
use crate::{
    error::Error,
    files::blocking,
    state::{Now, State},
};

/// How often files are looked at for more. Containers write to them directly, so nobody tells.
const LOOK: Duration = Duration::from_millis(100);
/// Most bytes of one container in one message.
const CHUNK_BYTES: u64 = 64 << 10;
const LONGEST_STREAM: Duration = Duration::from_secs(60);

/// How much of each container's output a client has seen, by the container's task.
type Cursor = BTreeMap<String, u64>;

/// Follows the output of an app's containers until the app is done or the request's time is up.
pub fn follow(shared: &Parts, request: pb::AppGetLogsRequest) -> Result<Answers<pb::TaskLogsBatch>, Error> {
    shared.read(|state| state.app(&request.app_id).map(|_| ()))?;
    let shared = shared.clone();
    let until = Instant::now() + seconds(request.timeout).min(LONGEST_STREAM);
    let folder = shared.options.app_log_folder(&request.app_id);
    let stream = async_stream::try_stream! {
        let mut cursor = decode(&request.last_entry_id);
        loop {
            // First whether it is over, then a last look, so that nothing printed before the end is missed.
            let done = shared.read(|state| is_done(state, &request.app_id));
            let (place, seen, only) = (folder.clone(), cursor.clone(), request.task_id.clone());
            let fresh = blocking(move || read_fresh(&place, &seen, &only, done).map_err(Error::io("read", "the logs"))).await?;
            let quiet = fresh.is_empty();
            for (task_id, data) in fresh {
                *cursor.entry(task_id.clone()).or_default() += data.len() as u64;
                yield batch(task_id, &data, encode(&cursor));
            }
            if quiet && done {
                yield pb::TaskLogsBatch { app_done: true, ..Default::default() };
                break;
            }
            if quiet && Instant::now() >= until {
                break;
            }
            let hung_up = tokio::select! {
                () = tokio::time::sleep(LOOK) => false,
                () = shared.hang_up.cancelled() => true,
            };
            if hung_up {
                Err(Error::ShuttingDown)?;
            }
        }
    };
    Ok(Box::pin(stream))
}

fn is_done(state: &State, app_id: &str) -> bool {
    state.app(app_id).is_ok_and(|app| app.is_stopped()) && state.tasks_of_app(app_id).next().is_none()
}

/// Whole lines that came since, or with `all` the unfinished last ones too.
fn read_fresh(folder: &Path, seen: &Cursor, only: &str, all: bool) -> io::Result<Vec<(String, Vec<u8>)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut fresh = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let Some(task_id) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        if !only.is_empty() && only != task_id {
            continue;
        }
        let mut file = File::open(&path)?;
        file.seek(SeekFrom::Start(seen.get(task_id).copied().unwrap_or(0)))?;
        let mut data = Vec::new();
        file.take(CHUNK_BYTES).read_to_end(&mut data)?;
        let full = data.len() as u64 == CHUNK_BYTES;
        match data.iter().rposition(|byte| *byte == b'\n') {
            Some(end) if !all => data.truncate(end + 1),
            None if !all && !full => data.clear(),
            _ => {}
        }
        if !data.is_empty() {
            fresh.push((task_id.to_owned(), data));
        }
    }
    fresh.sort();
    Ok(fresh)
}

fn batch(task_id: String, data: &[u8], entry_id: String) -> pb::TaskLogsBatch {
    let item = pb::TaskLogs {
        data: String::from_utf8_lossy(data).into_owned(),
        timestamp: Now::read().wall,
        // Both streams go to one file, so that their order is kept.
        file_descriptor: FileDescriptor::Stdout.into(),
        ..Default::default()
    };
    pb::TaskLogsBatch { task_id, items: vec![item], entry_id, ..Default::default() }
}

fn encode(cursor: &Cursor) -> String {
    cursor.iter().map(|(task_id, seen)| format!("{task_id}:{seen}")).collect::<Vec<_>>().join(",")
}

fn decode(entry_id: &str) -> Cursor {
    let seen = |item: &str| {
        let (task_id, seen) = item.split_once(':')?;
        Some((task_id.to_owned(), seen.parse().ok()?))
    };
    entry_id.split(',').filter_map(seen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_once_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("ta-1.log");
        fs::write(&log, "one\ntw").unwrap();
        let fresh = read_fresh(folder.path(), &Cursor::new(), "", false).unwrap();
        assert_eq!(fresh, [("ta-1".to_owned(), b"one\n".to_vec())]);
        let cursor = decode(&encode(&Cursor::from([("ta-1".to_owned(), 4)])));
        assert!(read_fresh(folder.path(), &cursor, "", false).unwrap().is_empty());
        assert_eq!(read_fresh(folder.path(), &cursor, "", true).unwrap(), [("ta-1".to_owned(), b"tw".to_vec())]);
        assert!(read_fresh(folder.path(), &Cursor::new(), "ta-2", false).unwrap().is_empty());
        assert!(read_fresh(&folder.path().join("none"), &cursor, "", true).unwrap().is_empty());
    }
}
