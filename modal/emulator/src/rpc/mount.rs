//! Mounts, and the contents of files on their way to a mount or a Volume.

use modal_proto::{self as pb, mount_put_file_request::DataOneof};
use sha2::{Digest, Sha256};

use super::Parts;
use crate::{error::Error, files::blocking, ids::blob_hash, state::Mount};

pub async fn get_or_create(
    shared: &Parts,
    request: pb::MountGetOrCreateRequest,
) -> Result<pb::MountGetOrCreateResponse, Error> {
    // Modal publishes mounts with a name, such as the SDK itself: the interpreter has those.
    let mut hash = Sha256::new();
    let mut mount = Mount { id: String::new(), name: request.deployment_name, files: Default::default() };
    hash.update(&mount.name);
    for file in request.files {
        if !shared.files.claim(&file.sha256_hex)? {
            return Err(Error::not_found("uploaded data", file.sha256_hex));
        }
        mount.files.insert(file.filename, (file.sha256_hex, file.mode));
    }
    let (store, hashes): (_, Vec<String>) =
        (shared.files.clone(), mount.files.values().map(|(h, _)| h.clone()).collect());
    blocking(move || store.sync(hashes.iter().map(String::as_str))).await?;
    for (path, (sha256_hex, mode)) in &mount.files {
        hash.update(format!("\0{path}\0{sha256_hex}\0{mode:?}"));
    }
    let checksum = hex::encode(hash.finalize());
    mount.id = format!("mo-{}", &checksum[..32]);
    let mount_id = mount.id.clone();
    shared.change(|state, _| state.add_mount(mount)).await?;
    let handle_metadata = Some(pb::MountHandleMetadata { content_checksum_sha256_hex: checksum });
    Ok(pb::MountGetOrCreateResponse { mount_id, handle_metadata })
}

pub fn check_existence(
    shared: &Parts,
    request: pb::MountBatchedCheckExistenceRequest,
) -> Result<pb::MountBatchedCheckExistenceResponse, Error> {
    let mut missing = Vec::new();
    for sha256_hex in request.sha256_hex_hashes {
        if !shared.files.claim(&sha256_hex)? {
            missing.push(sha256_hex);
        }
    }
    Ok(pb::MountBatchedCheckExistenceResponse { missing_sha256_hex_hashes: missing, checked_at: None })
}

pub async fn put_file(shared: &Parts, request: pb::MountPutFileRequest) -> Result<pb::MountPutFileResponse, Error> {
    let exists = match request.data_oneof {
        // A request without data only asks whether the file exists.
        None => shared.files.claim(&request.sha256_hex)?,
        Some(DataOneof::Data(data)) => shared.files.put(request.sha256_hex, data).await.map(|()| true)?,
        // A blob is in the file store already.
        Some(DataOneof::DataBlobId(id)) if blob_hash(&id) == Some(&request.sha256_hex) => {
            shared.files.claim(&request.sha256_hex)?
        }
        Some(DataOneof::DataBlobId(_)) => {
            return Err(Error::invalid("data_blob_id", "the blob does not have the SHA-256 that was announced"));
        }
    };
    Ok(pb::MountPutFileResponse { exists, checked_at: None })
}
