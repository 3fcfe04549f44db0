//! Blobs: contents of any size, by their hash. The blocks of Volume files are blobs, too.
//!
//! Large ones are uploaded in parts, in any order, into one file of the final size. The server keeps no other state of
//! an upload: the URLs of its parts have their position and size.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::PathBuf,
    sync::Arc,
};

use axum::{
    body::Body,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use md5::Md5;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    Site,
    stream::{CHUNK_BYTES, receive, send},
};
use crate::{error::Error, files::blocking, ids::new_id};

/// The size of the parts of a large upload, and of the largest blob that is uploaded in one request.
pub const PART_BYTES: u64 = 64 << 20;
/// Most parts of an upload.
pub const MAX_PARTS: u64 = 10_000;

/// The URLs of the parts of an upload.
pub struct PartUrls {
    pub parts: Vec<String>,
    pub completion: String,
}

impl Site {
    /// The URL to read a blob, and to write it if it has `limit` bytes at most.
    pub fn blob_url(&self, sha256_hex: &str, limit: u64) -> String {
        self.url(&format!("{}/blobs/{sha256_hex}?limit={limit}", self.key))
    }

    /// Begins an upload in parts.
    pub async fn begin_parts(&self, sha256_hex: &str, length: u64) -> Result<PartUrls, Error> {
        let count = length.div_ceil(PART_BYTES);
        if count > MAX_PARTS {
            let limit = MAX_PARTS * PART_BYTES;
            return Err(Error::invalid("content_length", format!("{length} is more than the {limit} bytes of a blob")));
        }
        let id = new_id("up");
        let path = self.files.upload(&id);
        blocking(move || {
            File::create_new(path).and_then(|file| file.set_len(length)).map_err(Error::io("start", "an upload"))
        })
        .await?;
        let base = format!("{}/uploads/{id}", self.key);
        Ok(PartUrls {
            parts: (0..count).map(|part| self.url(&format!("{base}/{part}"))).collect(),
            completion: self.url(&format!("{base}/complete/{sha256_hex}")),
        })
    }

    fn upload_path(&self, id: &str) -> Result<PathBuf, Error> {
        // It becomes a part of a path.
        if id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            Ok(self.files.upload(id))
        } else {
            Err(Error::not_found("upload", id))
        }
    }
}

#[derive(Deserialize)]
pub struct Limit {
    limit: u64,
}

pub async fn get_blob(
    State(site): State<Site>,
    Path((_, sha256_hex)): Path<(String, String)>,
) -> Result<Response, Error> {
    let path = site.files.path(&sha256_hex)?;
    let (file, length) = blocking(move || {
        let opened = File::open(path).and_then(|file| file.metadata().map(|meta| (file, meta.len())));
        opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::not_found("blob", sha256_hex),
            _ => Error::io("open", "a blob")(error),
        })
    })
    .await?;
    Ok(send(Arc::new(file), 0, length, || ()))
}

pub async fn put_blob(
    State(site): State<Site>,
    Path((_, sha256_hex)): Path<(String, String)>,
    Query(Limit { limit }): Query<Limit>,
    body: Body,
) -> Result<Response, Error> {
    site.files.path(&sha256_hex)?;
    let staged = Staged(site.files.upload(&new_id("up")));
    let file = File::create_new(&staged.0).map_err(Error::io("start", "an upload"))?;
    let to = file.try_clone().map_err(Error::io("start", "an upload"))?;
    let received = receive(body, to, 0, limit).await?;
    if received.sha256_hex != sha256_hex {
        return Err(Error::invalid("body", "it does not have the SHA-256 that was announced"));
    }
    blocking(move || {
        file.sync_all().map_err(Error::io("save", "an upload"))?;
        site.files.adopt(&staged.0, &sha256_hex)
    })
    .await?;
    Ok(tagged(&received.md5_hex))
}

pub async fn put_part(
    State(site): State<Site>,
    Path((_, id, part)): Path<(String, String, u64)>,
    body: Body,
) -> Result<Response, Error> {
    let file = fs::OpenOptions::new().write(true).open(site.upload_path(&id)?).map_err(lapsed(&id))?;
    let length = file.metadata().map_err(Error::io("read", "an upload"))?.len();
    let start = part.checked_mul(PART_BYTES).filter(|start| *start < length);
    let start = start.ok_or_else(|| Error::not_found("part", part.to_string()))?;
    let expected = PART_BYTES.min(length - start);
    let received = receive(body, file, start, expected).await?;
    if received.length != expected {
        return Err(Error::invalid("body", format!("it has {} of the {expected} bytes of its part", received.length)));
    }
    Ok(tagged(&received.md5_hex))
}

pub async fn complete(
    State(site): State<Site>,
    Path((_, id, sha256_hex)): Path<(String, String, String)>,
) -> Result<Response, Error> {
    let staged = site.upload_path(&id)?;
    let tag = blocking(move || {
        let mut file = File::open(&staged).map_err(lapsed(&id))?;
        let (found, tag) = digest_parts(&mut file).map_err(Error::io("check", "an upload"))?;
        if found != sha256_hex {
            return Err(Error::invalid("upload", "its parts together do not have the SHA-256 that was announced"));
        }
        file.sync_all().map_err(Error::io("save", "an upload"))?;
        site.files.adopt(&staged, &sha256_hex)?;
        Ok(tag)
    })
    .await?;
    Ok(format!("<CompleteMultipartUploadResult><ETag>\"{tag}\"</ETag></CompleteMultipartUploadResult>").into_response())
}

/// The SHA-256 of a file, and its tag in S3 after an upload in parts.
fn digest_parts(file: &mut File) -> io::Result<(String, String)> {
    let (mut sha256, mut tags, mut count) = (Sha256::new(), Md5::new(), 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let (mut md5, mut part) = (Md5::new(), file.by_ref().take(PART_BYTES));
        loop {
            match part.read(&mut chunk)? {
                0 => break,
                read => {
                    sha256.update(&chunk[..read]);
                    md5.update(&chunk[..read]);
                }
            }
        }
        if part.limit() == PART_BYTES {
            return Ok((hex::encode(sha256.finalize()), format!("{}-{count}", hex::encode(tags.finalize()))));
        }
        tags.update(md5.finalize());
        count += 1;
    }
}

fn lapsed(id: &str) -> impl FnOnce(io::Error) -> Error {
    move |error| match error.kind() {
        io::ErrorKind::NotFound => Error::not_found("upload", id),
        _ => Error::io("open", "an upload")(error),
    }
}

/// The response to an upload. The SDK compares the tag with the MD5 of what it sent.
fn tagged(md5_hex: &str) -> Response {
    (StatusCode::OK, [(header::ETAG, format!("\"{md5_hex}\""))]).into_response()
}

/// A file that is removed unless it was moved away.
struct Staged(PathBuf);

impl Drop for Staged {
    fn drop(&mut self) {
        // It does not exist any more if it became a blob; one that stays is removed by `sweep`.
        let _ = fs::remove_file(&self.0);
    }
}
