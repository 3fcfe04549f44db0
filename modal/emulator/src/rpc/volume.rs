//! Volumes.

use modal_proto::{self as pb, VolumeFsVersion};

use super::{Parts, ResponseStream, page, response_stream, session::creation_info};
use crate::{error::Error, state::Volume, volumes::BLOCK_BYTES};

/// Most entries in one message of a listing.
const ENTRIES_PER_MESSAGE: usize = 1_000;

pub async fn get_or_create(
    shared: &Parts,
    request: pb::VolumeGetOrCreateRequest,
) -> Result<pb::VolumeGetOrCreateResponse, Error> {
    let volume = shared.change(|state, now| state.get_or_create_volume(&request, now)).await?;
    shared.volumes.create(&volume.id).await?;
    Ok(pb::VolumeGetOrCreateResponse {
        version: volume.version,
        metadata: Some(volume.metadata()),
        volume_id: volume.id,
    })
}

pub fn get_by_id(shared: &Parts, request: &pb::VolumeGetByIdRequest) -> Result<pb::VolumeGetByIdResponse, Error> {
    shared.read(|state| {
        let volume = state.volume(&request.volume_id)?;
        Ok(pb::VolumeGetByIdResponse { volume_id: volume.id.clone(), metadata: Some(volume.metadata()) })
    })
}

pub fn list(shared: &Parts, request: &pb::VolumeListRequest) -> pb::VolumeListResponse {
    let environment = crate::state::environment(&request.environment_name).to_owned();
    let item = |volume: &Volume| pb::VolumeListItem {
        label: volume.name.clone(),
        volume_id: volume.id.clone(),
        created_at: volume.created_at,
        metadata: Some(volume.metadata()),
    };
    let items = shared.read(|state| {
        let named = state.volumes.values().filter(|v| !v.name.is_empty() && v.environment == environment);
        page(named, request.pagination, |volume| volume.created_at).into_iter().map(item).collect()
    });
    pb::VolumeListResponse { items, environment_name: environment }
}

pub async fn delete(shared: &Parts, request: pb::VolumeDeleteRequest) -> Result<(), Error> {
    shared.change(|state, _| state.delete_volume(&request.volume_id)).await?;
    shared.volumes.delete(&request.volume_id).await
}

/// The fields of both versions of the listing request.
pub struct Listing {
    pub volume_id: String,
    pub path: String,
    pub recursive: bool,
    pub max_entries: Option<u32>,
}

pub async fn list_files<T: Send + 'static>(
    shared: &Parts,
    request: Listing,
    message: fn(Vec<pb::FileEntry>) -> T,
) -> Result<ResponseStream<T>, Error> {
    check(shared, &request.volume_id)?;
    let Listing { volume_id, path, recursive, max_entries } = request;
    let entries = shared.volumes.list(&volume_id, path, recursive, max_entries).await?;
    Ok(response_stream(entries.chunks(ENTRIES_PER_MESSAGE).map(|chunk| message(chunk.to_vec())).collect()))
}

pub async fn get_file(shared: &Parts, request: pb::VolumeGetFile2Request) -> Result<pb::VolumeGetFile2Response, Error> {
    check(shared, &request.volume_id)?;
    let (file, size) = shared.volumes.open(&request.volume_id, request.path).await?;
    let start = request.start.min(size);
    let rest = size - start;
    // Without a length, all of it is wanted.
    let len = if request.len == 0 { rest } else { request.len.min(rest) };
    let get_urls = shared.site.offer(file, start, len);
    Ok(pb::VolumeGetFile2Response { get_urls, size, start, len })
}

pub async fn put_files(shared: &Parts, request: pb::VolumePutFilesRequest) -> Result<(), Error> {
    check(shared, &request.volume_id)?;
    let keep_existing = request.disallow_overwrite_existing_files;
    shared.volumes.put(&request.volume_id, request.files, shared.files.clone(), keep_existing).await
}

pub async fn put_files2(
    shared: &Parts,
    request: pb::VolumePutFiles2Request,
) -> Result<pb::VolumePutFiles2Response, Error> {
    check(shared, &request.volume_id)?;
    let (store, keep_existing) = (shared.files.clone(), request.disallow_overwrite_existing_files);
    let missing = shared.volumes.put_blocks(&request.volume_id, request.files, store, keep_existing).await?;
    let missing = missing.into_iter().map(|block| pb::volume_put_files2_response::MissingBlock {
        file_index: block.file_index as u64,
        block_index: block.block_index as u64,
        put_url: shared.site.blob_url(&block.sha256_hex, BLOCK_BYTES),
    });
    Ok(pb::VolumePutFiles2Response { missing_blocks: missing.collect() })
}

pub async fn copy_files(
    shared: &Parts,
    volume_id: &str,
    sources: Vec<String>,
    destination: String,
    recursive: bool,
) -> Result<(), Error> {
    check(shared, volume_id)?;
    shared.volumes.copy(volume_id, sources, destination, recursive).await
}

pub async fn rename(shared: &Parts, request: pb::VolumeRenameRequest) -> Result<(), Error> {
    shared.change(|state, _| state.rename_volume(&request.volume_id, &request.name)).await
}

pub async fn remove_file(shared: &Parts, volume_id: &str, path: String, recursive: bool) -> Result<(), Error> {
    check(shared, volume_id)?;
    shared.volumes.remove(volume_id, path, recursive).await
}

pub async fn commit(
    shared: &Parts,
    task_id: &str,
    request: &pb::VolumeCommitRequest,
) -> Result<pb::VolumeCommitResponse, Error> {
    check(shared, &request.volume_id)?;
    let to_reload = shared.views.commit(task_id, &request.volume_id).await?;
    Ok(pb::VolumeCommitResponse { skip_reload: !to_reload })
}

pub async fn reload(shared: &Parts, task_id: &str, request: &pb::VolumeReloadRequest) -> Result<(), Error> {
    check(shared, &request.volume_id)?;
    shared.views.reload(task_id, &request.volume_id).await
}

pub fn check(shared: &Parts, volume_id: &str) -> Result<(), Error> {
    shared.read(|state| state.volume(volume_id).map(|_| ()))
}

impl Volume {
    /// The Volume as clients see it.
    pub fn metadata(&self) -> pb::VolumeMetadata {
        // The first version is the one that is implemented here, and the meaning of "unspecified".
        let version = match VolumeFsVersion::try_from(self.version) {
            Ok(VolumeFsVersion::Unspecified) | Err(_) => VolumeFsVersion::V1.into(),
            Ok(version) => version.into(),
        };
        pb::VolumeMetadata { version, name: self.name.clone(), creation_info: Some(creation_info(self.created_at)) }
    }
}
