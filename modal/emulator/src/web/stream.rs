//! Bodies to and from files, of which only a little is in memory at a time.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures::{StreamExt, TryStreamExt, stream};
use md5::Md5;
use sha2::{Digest, Sha256};

use crate::{error::Error, files::blocking};

/// How much is read, hashed and written at a time.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Responds with a range of a file, which is not empty, and calls `sent` after the last part.
pub fn send(file: Arc<File>, start: u64, length: u64, sent: impl FnOnce() + Send + 'static) -> Response {
    let begin = (file, start, start + length, Some(sent));
    let chunks = stream::try_unfold(begin, |(file, at, end, mut sent)| async move {
        if at == end {
            return Ok::<_, io::Error>(None);
        }
        let read = tokio::task::spawn_blocking(move || {
            let size = usize::try_from(end - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            let mut chunk = vec![0; size];
            file.read_exact_at(&mut chunk, at)?;
            Ok::<_, io::Error>((Bytes::from(chunk), file))
        });
        let (chunk, file) = read.await.map_err(io::Error::other)??;
        let at = at + chunk.len() as u64;
        // The client reads no more than the announced length, so this may be the last poll.
        if at == end
            && let Some(sent) = sent.take()
        {
            sent();
        }
        Ok(Some((chunk, (file, at, end, sent))))
    });
    // If the file shrinks meanwhile, the connection breaks, and the client tries again.
    let chunks = chunks.inspect_err(|error| tracing::warn!(%error, "a download broke off"));
    let headers =
        [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::CONTENT_LENGTH, length.to_string())];
    (headers, Body::from_stream(chunks)).into_response()
}

/// The size and hashes of what was received, to compare with those announced.
pub struct Received {
    pub length: u64,
    pub sha256_hex: String,
    pub md5_hex: String,
}

/// A file that is being received.
struct Sink {
    file: File,
    start: u64,
    length: u64,
    sha256: Sha256,
    md5: Md5,
}

impl Sink {
    fn write(mut self, chunks: Vec<Bytes>) -> io::Result<Self> {
        for chunk in chunks {
            self.sha256.update(&chunk);
            self.md5.update(&chunk);
            self.file.write_all_at(&chunk, self.start + self.length)?;
            self.length += chunk.len() as u64;
        }
        Ok(self)
    }
}

/// Writes a body of `limit` bytes at most to a position in a file, and hashes it.
pub async fn receive(body: Body, file: File, start: u64, limit: u64) -> Result<Received, Error> {
    let mut sink = Sink { file, start, length: 0, sha256: Sha256::new(), md5: Md5::new() };
    let mut frames = body.into_data_stream();
    loop {
        let (mut chunks, mut size) = (Vec::new(), 0);
        while size < CHUNK_BYTES
            && let Some(frame) = frames.next().await
        {
            let frame = frame.map_err(|error| Error::invalid("body", format!("it broke off ({error})")))?;
            size += frame.len();
            chunks.push(frame);
        }
        if size == 0 {
            break;
        }
        if sink.length + size as u64 > limit {
            return Err(Error::invalid("body", format!("it has more than the {limit} bytes that were announced")));
        }
        // Hashing and writing would block the event loop.
        sink = blocking(move || sink.write(chunks).map_err(Error::io("save", "an upload"))).await?;
    }
    Ok(Received {
        length: sink.length,
        sha256_hex: hex::encode(sink.sha256.finalize()),
        md5_hex: hex::encode(sink.md5.finalize()),
    })
}
