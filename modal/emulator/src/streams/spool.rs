//! A stream that is stored in a file, for any number of readers.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read, Write},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use modal_proto::DataChunk;
use parking_lot::{Mutex, MutexGuard};
use prost::Message;
use tokio::sync::watch;

use super::fresh;
use crate::{
    error::Error,
    files::{blocking, sync_folder},
};

/// How many bytes a generator may be ahead of its fastest reader.
const AHEAD_BYTES: u64 = 64 << 20;
/// About how many bytes are read at a time.
const READ_BYTES: u64 = 1 << 20;
/// The length in front of each chunk in the file.
const PREFIX_BYTES: u64 = 4;

/// The values of one generator.
pub struct Spool {
    path: PathBuf,
    inner: Arc<Mutex<Inner>>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Inner {
    /// Opened when it is first used: most calls have none.
    file: Option<Arc<File>>,
    /// Where each chunk ends; chunk number 1 begins at 0.
    ends: Vec<u64>,
    /// The most chunks that a reader has confirmed.
    confirmed: usize,
    readers: usize,
    /// Whether the stream has been dropped.
    dropped: bool,
}

/// Counts as a reader until it is dropped.
pub struct Reader(Arc<Spool>);

impl Spool {
    pub fn new(path: PathBuf) -> Self {
        Self { path, inner: Arc::default(), changed: watch::Sender::new(()) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Waits until the generator may continue. `false` if nobody read for `patience`.
    pub async fn room(&self, patience: Duration) -> bool {
        let mut changed = self.changed.subscribe();
        let (mut unread_since, mut was_read) = (Instant::now(), false);
        loop {
            changed.mark_unchanged();
            {
                let inner = self.lock();
                if inner.dropped || inner.ahead() < AHEAD_BYTES {
                    return true;
                }
                if inner.readers > 0 || was_read {
                    unread_since = Instant::now();
                }
                was_read = inner.readers > 0;
            }
            let deserted = tokio::time::sleep_until((unread_since + patience).into());
            tokio::select! {
                // The sender lives as long as `self`.
                _ = changed.changed() => {}
                () = deserted, if !was_read => return false,
            }
        }
    }

    /// Adds chunks. Existing ones stay as they are: a request may be repeated, and a generator that runs again starts
    /// over.
    pub async fn append(&self, chunks: Vec<DataChunk>) -> Result<(), Error> {
        let (inner, path) = (self.inner.clone(), self.path.clone());
        blocking(move || {
            let mut inner = inner.lock();
            if inner.dropped {
                return Ok(());
            }
            inner.append(&path, chunks).map_err(Error::io("save", "what a generator yielded"))
        })
        .await?;
        self.changed.send_replace(());
        Ok(())
    }

    /// Makes the added chunks durable.
    pub async fn sync(&self) -> Result<(), Error> {
        let Some(file) = self.lock().file.clone() else { return Ok(()) };
        let path = self.path.clone();
        let sync = move || file.sync_data().and_then(|()| sync_folder(&path));
        blocking(move || sync().map_err(Error::io("save", "what a generator yielded"))).await
    }

    /// Adds a reader.
    pub fn reader(self: &Arc<Self>) -> Reader {
        self.lock().readers += 1;
        Reader(self.clone())
    }

    /// Ends the stream and wakes those who wait for it.
    pub fn drop_values(&self) {
        self.lock().dropped = true;
        self.changed.send_replace(());
    }
}

impl Reader {
    /// The chunks after number `index`, when there are some, up to the size of one read; `None` if none will come.
    pub async fn read(&self, index: u64) -> Result<Option<Vec<DataChunk>>, Error> {
        let spool = &self.0;
        let seen = usize::try_from(index).map_err(|_| Error::invalid("last_index", "it is too large"))?;
        let mut changed = spool.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let (inner, path) = (spool.inner.clone(), spool.path.clone());
            let look = move || {
                let mut inner = inner.lock();
                if inner.dropped {
                    return Ok((None, true, false));
                }
                inner.open(&path, false)?;
                let freed = seen > inner.confirmed;
                inner.confirmed = inner.confirmed.max(seen);
                Ok::<_, io::Error>((inner.read(seen)?, false, freed))
            };
            let look = move || look().map_err(Error::io("read", "what a generator yielded"));
            let (found, dropped, freed) = blocking(look).await?;
            if freed {
                // This wakes the reader as well, to check again: to mark it as seen could lose a chunk just written.
                spool.changed.send_replace(());
            }
            if found.is_some() || dropped {
                return Ok(found);
            }
            if changed.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.lock().readers -= 1;
        self.0.changed.send_replace(());
    }
}

impl Inner {
    fn ahead(&self) -> u64 {
        let read = self.confirmed.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or(0);
        self.ends.last().copied().unwrap_or(0).saturating_sub(read)
    }

    /// Opens the file, which need not exist unless `create` is set.
    fn open(&mut self, path: &PathBuf, create: bool) -> io::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        let file = match OpenOptions::new().read(true).append(true).create(create).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !create => return Ok(()),
            opened => opened?,
        };
        self.ends = chunk_ends(&file)?;
        // An incomplete chunk, from a crash.
        file.set_len(self.ends.last().copied().unwrap_or(0))?;
        self.file = Some(Arc::new(file));
        Ok(())
    }

    fn append(&mut self, path: &PathBuf, chunks: Vec<DataChunk>) -> io::Result<()> {
        self.open(path, true)?;
        let Some(file) = self.file.clone() else { return Ok(()) };
        let mut data = Vec::new();
        let mut ends = Vec::new();
        let start = self.ends.last().copied().unwrap_or(0);
        for chunk in fresh(chunks, self.ends.len() as u64) {
            let length = u32::try_from(chunk.encoded_len()).map_err(io::Error::other)?;
            data.extend(length.to_le_bytes());
            chunk.encode(&mut data).map_err(io::Error::other)?;
            ends.push(start + data.len() as u64);
        }
        if let Err(error) = (&*file).write_all(&data) {
            // An incomplete chunk must not stay before the next one; the first error is the one to report.
            let _ = file.set_len(start);
            return Err(error);
        }
        self.ends.extend(ends);
        Ok(())
    }

    fn read(&self, position: usize) -> io::Result<Option<Vec<DataChunk>>> {
        let (Some(file), Some(first)) = (&self.file, self.ends.get(position)) else { return Ok(None) };
        let start = position.checked_sub(1).map_or(0, |before| self.ends[before]);
        let wanted = |end: &u64| *end == *first || *end - start <= READ_BYTES;
        let count = self.ends[position..].partition_point(wanted);
        let ends = &self.ends[position..position + count];
        let length = |from: u64, to: u64| usize::try_from(to - from).map_err(io::Error::other);
        let mut data = vec![0; length(start, ends.last().copied().unwrap_or(start))?];
        file.read_exact_at(&mut data, start)?;
        // All chunks share the memory that was read.
        let (mut data, mut from) = (Bytes::from(data), start);
        let mut decode = |end: &u64| {
            let chunk = data.split_to(length(from, *end)?).slice(PREFIX_BYTES as usize..);
            from = *end;
            DataChunk::decode(chunk).map_err(io::Error::other)
        };
        ends.iter().map(&mut decode).collect::<io::Result<_>>().map(Some)
    }
}

/// Where the complete chunks of a file end.
fn chunk_ends(file: &File) -> io::Result<Vec<u64>> {
    let length = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    let (mut ends, mut end) = (Vec::new(), 0);
    let mut prefix = [0; PREFIX_BYTES as usize];
    while end + PREFIX_BYTES <= length {
        reader.read_exact(&mut prefix)?;
        let size = u32::from_le_bytes(prefix);
        end += PREFIX_BYTES + u64::from(size);
        if end > length {
            break;
        }
        reader.seek_relative(i64::from(size))?;
        ends.push(end);
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use modal_proto::data_chunk::DataOneof;

    use super::*;

    fn chunk(index: u64, text: &str) -> DataChunk {
        DataChunk { index, data_oneof: Some(DataOneof::Data(text.to_owned().into())), ..Default::default() }
    }

    #[tokio::test]
    async fn complete_values_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fc-1");
        let spool = Spool::new(path.clone());
        spool.append(vec![chunk(1, "one"), chunk(2, "two")]).await.unwrap();
        spool.append(vec![chunk(1, "eins"), chunk(2, "zwei"), chunk(3, "three")]).await.unwrap();
        spool.sync().await.unwrap();
        drop(spool);
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        (&file).write_all(&[9, 0, 0, 0, 1]).unwrap();
        let spool = Arc::new(Spool::new(path));
        let reader = spool.reader();
        let all = [chunk(1, "one"), chunk(2, "two"), chunk(3, "three")];
        for index in [0, 2, 1] {
            assert_eq!(reader.read(index).await.unwrap().unwrap(), all[usize::try_from(index).unwrap()..]);
        }
        spool.append(vec![chunk(4, "four")]).await.unwrap();
        assert_eq!(reader.read(3).await.unwrap(), Some(vec![chunk(4, "four")]));
        spool.drop_values();
        assert_eq!(reader.read(4).await.unwrap(), None);
    }

    #[tokio::test]
    async fn generator_waits_for_a_slow_reader() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::new(folder.path().join("fc-1")));
        let much = "x".repeat(AHEAD_BYTES as usize);
        spool.append(vec![chunk(1, &much), chunk(2, "next")]).await.unwrap();
        let waiting = spool.clone();
        let mut room = tokio::spawn(async move { waiting.room(Duration::from_secs(60)).await });
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut room).await.is_err());
        assert!(!spool.room(Duration::from_millis(1)).await, "nobody reads");
        assert_eq!(spool.reader().read(0).await.unwrap().unwrap().len(), 1, "one at a time if they are large");
        assert_eq!(spool.reader().read(1).await.unwrap().unwrap(), [chunk(2, "next")]);
        assert!(room.await.unwrap());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn waiting_reader_receives_every_chunk() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::new(folder.path().join("fc-1")));
        let (writer, reader) = (spool.clone(), spool.reader());
        let (next, mut wanted) = tokio::sync::mpsc::unbounded_channel();
        let writing = tokio::spawn(async move {
            while let Some(index) = wanted.recv().await {
                writer.append(vec![chunk(index, "x")]).await.unwrap();
            }
        });
        for index in 0..2_000 {
            // It is written while the reader starts to wait for it.
            next.send(index + 1).unwrap();
            let read = tokio::time::timeout(Duration::from_secs(20), reader.read(index)).await;
            assert_eq!(read.expect("it is woken").unwrap().unwrap(), [chunk(index + 1, "x")]);
        }
        drop(next);
        writing.await.unwrap();
    }
}
