//! Volumes (version 1): files uploaded by content hash, read by download URLs.

use std::{
    collections::HashSet,
    io::{self, Write},
};

use modal_proto::{
    MountFile, MountPutFileRequest, ObjectCreationType, VolumeDeleteRequest, VolumeFsVersion, VolumeGetFile2Request,
    VolumeGetOrCreateRequest, VolumeListFiles2Request, VolumePutFilesRequest, VolumeRemoveFileRequest, file_entry,
    mount_put_file_request::DataOneof,
};
use sha2::{Digest, Sha256};
use tokio::task::{JoinError, JoinSet};
use tonic::codegen::Bytes;

use crate::{
    error::{Error, Result, found},
    wire::{Client, rpc},
};

/// The most concurrent uploads. Each may be large.
const UPLOADS_AT_A_TIME: usize = 8;

#[derive(Clone)]
pub struct Volume {
    client: Client,
    id: String,
}

/// A file to upload: an absolute path on the Volume and its content, which clones share.
#[derive(Clone, Debug)]
pub struct File {
    pub path: String,
    pub content: Bytes,
}

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path from the Volume's root, without a leading slash.
    pub path: String,
    pub kind: EntryKind,
    /// Bytes.
    pub size: u64,
    /// Seconds since the epoch.
    pub modified: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    File,
    Directory,
    Other,
}

impl Client {
    /// The Volume of this name, created if it is missing.
    ///
    /// # Errors
    /// [`Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn volume(&self, name: &str) -> Result<Volume> {
        let request = VolumeGetOrCreateRequest {
            deployment_name: name.to_owned(),
            object_creation_type: ObjectCreationType::CreateIfMissing.into(),
            version: VolumeFsVersion::V1.into(),
            environment_name: self.environment_name(),
            ..Default::default()
        };
        let id = rpc!(self, volume_get_or_create, request)?.volume_id;
        Ok(Volume { client: self.clone(), id })
    }

    /// The Volume of this name, or `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn find_volume(&self, name: &str) -> Result<Option<Volume>> {
        let request = VolumeGetOrCreateRequest {
            deployment_name: name.to_owned(),
            environment_name: self.environment_name(),
            ..Default::default()
        };
        let it = found(rpc!(self, volume_get_or_create, request))?;
        Ok(it.map(|it| Volume { client: self.clone(), id: it.volume_id }))
    }

    /// Removes the Volume of this name with its contents; returns whether there was one.
    ///
    /// # Errors
    /// [`Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn delete_volume(&self, name: &str) -> Result<bool> {
        let Some(Volume { id: volume_id, .. }) = self.find_volume(name).await? else { return Ok(false) };
        Ok(found(rpc!(self, volume_delete, VolumeDeleteRequest { volume_id, ..Default::default() }))?.is_some())
    }
}

impl Volume {
    /// Uploads files, over those at the same paths: their contents first, then all paths in one RPC.
    ///
    /// # Errors
    /// [`Error::Rpc`] if the server cannot be reached or refuses a file, such as one at an invalid path. After a
    /// refusal, no path has changed.
    pub async fn put(&self, files: Vec<File>) -> Result<()> {
        let (mut sent, mut uploads) = (HashSet::new(), JoinSet::new());
        let mut named = Vec::with_capacity(files.len());
        for file in files {
            let sha256_hex = hex::encode(Sha256::digest(&file.content));
            named.push(MountFile {
                filename: file.path,
                sha256_hex: sha256_hex.clone(),
                mode: Some(0o644),
                ..Default::default()
            });
            if sent.insert(sha256_hex.clone()) {
                if uploads.len() == UPLOADS_AT_A_TIME {
                    finished(uploads.join_next().await)?;
                }
                let data_oneof = Some(DataOneof::Data(file.content));
                let (client, request) = (self.client.clone(), MountPutFileRequest { sha256_hex, data_oneof });
                uploads.spawn(async move { rpc!(client, mount_put_file, request).map(drop) });
            }
        }
        while !uploads.is_empty() {
            finished(uploads.join_next().await)?;
        }
        let request = VolumePutFilesRequest { volume_id: self.id.clone(), files: named, ..Default::default() };
        rpc!(self.client, volume_put_files, request).map(|_| ())
    }

    /// The entries below a folder; a folder that does not exist has none.
    ///
    /// # Errors
    /// [`Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn list(&self, path: &str, recursive: bool) -> Result<Vec<Entry>> {
        let request = VolumeListFiles2Request {
            volume_id: self.id.clone(),
            path: path.to_owned(),
            recursive,
            ..Default::default()
        };
        let collected = async {
            let mut stream = self.client.stub().volume_list_files2(request).await?.into_inner();
            let mut entries = Vec::new();
            while let Some(batch) = stream.message().await? {
                entries.extend(batch.entries.into_iter().map(Entry::from));
            }
            Ok(entries)
        };
        match collected.await.map_err(|status| Error::rpc("volume_list_files2", status)) {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            result => result,
        }
    }

    /// The content of a file, or `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Rpc`] if the server cannot be reached or refuses the request, [`Error::Download`] if the content cannot
    /// be downloaded, [`Error::Truncated`] if it has another size than the server said.
    pub async fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let mut content = Vec::new();
        Ok(self.read_into(path, &mut content).await?.then_some(content))
    }

    /// Writes the content of a file to `to` in parts; returns whether the file exists. After an error, a part may have
    /// been written.
    ///
    /// # Errors
    /// As [`Self::read`]; [`Error::Download`] also if `to` cannot be written.
    pub async fn read_into(&self, path: &str, to: &mut (impl Write + Send)) -> Result<bool> {
        let request = VolumeGetFile2Request { volume_id: self.id.clone(), path: path.to_owned(), ..Default::default() };
        let file = match rpc!(self.client, volume_get_file2, request) {
            Err(error) if error.is_not_found() => return Ok(false),
            result => result?,
        };
        let mut counted = Counted { to, bytes: 0 };
        for url in &file.get_urls {
            self.client.download(path, url, &mut counted).await?;
        }
        let actual = counted.bytes;
        if actual == file.size {
            Ok(true)
        } else {
            Err(Error::Truncated { path: path.to_owned(), expected: file.size, actual })
        }
    }

    /// Removes a file; returns whether it existed.
    ///
    /// # Errors
    /// [`Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn remove(&self, path: &str) -> Result<bool> {
        self.remove_path(path, false).await
    }

    /// Removes a folder with its contents; returns whether it existed.
    ///
    /// # Errors
    /// [`Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn remove_folder(&self, path: &str) -> Result<bool> {
        self.remove_path(path, true).await
    }

    async fn remove_path(&self, path: &str, recursive: bool) -> Result<bool> {
        let request = VolumeRemoveFileRequest { volume_id: self.id.clone(), path: path.to_owned(), recursive };
        match rpc!(self.client, volume_remove_file, request) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A writer that counts bytes.
struct Counted<'a, W> {
    to: &'a mut W,
    bytes: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.to.write(data)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The outcome of one of several tasks.
fn finished(task: Option<std::result::Result<Result<()>, JoinError>>) -> Result<()> {
    match task {
        None => Ok(()),
        Some(Ok(outcome)) => outcome,
        // Tasks are not aborted, so it panicked. The panic is passed on.
        Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl From<modal_proto::FileEntry> for Entry {
    fn from(entry: modal_proto::FileEntry) -> Self {
        let kind = match entry.r#type() {
            file_entry::FileType::File => EntryKind::File,
            file_entry::FileType::Directory => EntryKind::Directory,
            _ => EntryKind::Other,
        };
        Self { path: entry.path, kind, size: entry.size, modified: entry.mtime }
    }
}
