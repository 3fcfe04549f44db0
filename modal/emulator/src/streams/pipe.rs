//! A stream that passes through memory.

use std::collections::VecDeque;

use modal_proto::{DataChunk, data_chunk::DataOneof};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::fresh;

/// How many bytes may wait for their reader before the writer waits. The chunks of one request may exceed that.
const WINDOW_BYTES: usize = 4 << 20;

/// The two directions of a web request.
#[derive(Default)]
pub struct Exchange {
    /// To the container.
    pub request: Pipe,
    /// From the container.
    pub response: Pipe,
}

impl Exchange {
    /// Ends both directions; what was written can still be read.
    pub fn close(&self) {
        self.request.close();
        self.response.close();
    }
}

/// Chunks from one writer to one reader.
pub struct Pipe {
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Inner {
    /// The chunks that the reader has not confirmed.
    chunks: VecDeque<DataChunk>,
    bytes: usize,
    /// The index of the last chunk.
    last_index: u64,
    closed: bool,
}

impl Default for Pipe {
    fn default() -> Self {
        Self { inner: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Writes chunks when there is room. Those written to a closed pipe are dropped.
    pub async fn write(&self, chunks: Vec<DataChunk>) {
        self.when_there_is_room(|inner| {
            let last_index = inner.last_index;
            for chunk in fresh(chunks, last_index) {
                inner.push(chunk);
            }
        })
        .await;
    }

    /// Writes data as the next chunk, when there is room.
    pub async fn write_next(&self, data_format: i32, data: Vec<u8>) {
        self.when_there_is_room(|inner| inner.push_next(data_format, data)).await;
    }

    /// Writes data at once, and closes the pipe after it.
    pub fn write_last(&self, data_format: i32, data: Vec<u8>) {
        {
            let mut inner = self.lock();
            if !inner.closed {
                inner.push_next(data_format, data);
                inner.closed = true;
            }
        }
        self.changed.send_replace(());
    }

    async fn when_there_is_room(&self, push: impl FnOnce(&mut Inner)) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            {
                let mut inner = self.lock();
                if inner.closed {
                    return;
                }
                if inner.bytes < WINDOW_BYTES {
                    push(&mut inner);
                    break;
                }
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
        self.changed.send_replace(());
    }

    /// The first chunk after `index`, when there is one; `None` if none will come. The reader confirms a chunk by
    /// requesting the next one; until then it can request it again.
    pub async fn read(&self, index: u64) -> Option<DataChunk> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let (found, freed) = {
                let mut inner = self.lock();
                let freed = inner.confirm(index);
                match inner.chunks.front() {
                    Some(chunk) => (Some(chunk.clone()), freed),
                    None if inner.closed => return None,
                    None => (None, freed),
                }
            };
            if freed {
                // This wakes the reader as well, to check again: to mark it as seen could lose a chunk just written.
                self.changed.send_replace(());
            }
            if found.is_some() {
                return found;
            }
            if changed.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Ends the stream. What was written can still be read.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.send_replace(());
    }

    /// Ends the stream and drops what was not read. Writers do not wait any more.
    pub fn discard(&self) {
        {
            let mut inner = self.lock();
            inner.closed = true;
            inner.chunks.clear();
            inner.bytes = 0;
        }
        self.changed.send_replace(());
    }
}

impl Inner {
    fn push(&mut self, chunk: DataChunk) {
        self.bytes += size(&chunk);
        self.last_index = chunk.index;
        self.chunks.push_back(chunk);
    }

    fn push_next(&mut self, data_format: i32, data: Vec<u8>) {
        let (index, data_oneof) = (self.last_index + 1, Some(DataOneof::Data(data.into())));
        self.push(DataChunk { data_format, index, data_oneof });
    }

    fn confirm(&mut self, index: u64) -> bool {
        let mut freed = false;
        while let Some(chunk) = self.chunks.pop_front_if(|chunk| chunk.index <= index) {
            self.bytes -= size(&chunk);
            freed = true;
        }
        freed
    }
}

/// About how many bytes of memory a chunk takes.
fn size(chunk: &DataChunk) -> usize {
    let data = match &chunk.data_oneof {
        Some(DataOneof::Data(data)) => data.len(),
        Some(DataOneof::DataBlobId(id)) => id.len(),
        None => 0,
    };
    data + size_of::<DataChunk>()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    fn chunk(index: u64, bytes: usize) -> DataChunk {
        DataChunk { index, data_oneof: Some(DataOneof::Data(vec![0; bytes].into())), ..Default::default() }
    }

    #[tokio::test]
    async fn chunks_are_in_order_and_can_be_read_again() {
        let pipe = Pipe::default();
        pipe.write(vec![chunk(1, 1), chunk(2, 1)]).await;
        pipe.write(vec![chunk(2, 1), chunk(3, 1)]).await;
        for (after, expected) in [(0, 1), (0, 1), (1, 2), (2, 3)] {
            assert_eq!(pipe.read(after).await.unwrap().index, expected);
        }
        pipe.close();
        assert_eq!(pipe.read(2).await.unwrap().index, 3);
        assert!(pipe.read(3).await.is_none());
    }

    #[tokio::test]
    async fn writer_waits_when_the_window_is_full() {
        let pipe = Arc::new(Pipe::default());
        pipe.write(vec![chunk(1, WINDOW_BYTES)]).await;
        let writer = pipe.clone();
        let mut writing = tokio::spawn(async move { writer.write(vec![chunk(2, WINDOW_BYTES)]).await });
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut writing).await.is_err(), "no room yet");
        assert_eq!(pipe.read(0).await.unwrap().index, 1);
        assert_eq!(pipe.read(1).await.unwrap().index, 2);
        writing.await.unwrap();
        let writer = pipe.clone();
        let writing = tokio::spawn(async move { writer.write(vec![chunk(3, 1)]).await });
        pipe.discard();
        writing.await.unwrap();
        assert!(pipe.read(1).await.is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn waiting_reader_receives_every_chunk() {
        let pipe = Arc::new(Pipe::default());
        let writer = pipe.clone();
        let (next, mut wanted) = tokio::sync::mpsc::unbounded_channel();
        let writing = tokio::spawn(async move {
            while let Some(index) = wanted.recv().await {
                writer.write(vec![chunk(index, 1)]).await;
            }
        });
        for index in 0..20_000 {
            // It is written while the reader starts to wait for it.
            next.send(index + 1).unwrap();
            let read = tokio::time::timeout(Duration::from_secs(20), pipe.read(index)).await;
            assert_eq!(read.expect("it is woken").unwrap().index, index + 1);
        }
        drop(next);
        writing.await.unwrap();
    }
}
