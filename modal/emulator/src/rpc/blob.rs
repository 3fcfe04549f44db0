//! Blobs: data that is too large for a message. Here are the RPCs for their URLs; `web` has the contents.

use base64::{Engine, engine::general_purpose::STANDARD};
use modal_proto::{
    self as pb,
    blob_create_response::{UploadTypeOneof, UploadTypesOneof},
    function_input::ArgsOneof,
};

use super::Parts;
use crate::{
    error::Error,
    ids::{blob_hash, blob_id},
    web::PART_BYTES,
};

pub async fn create(shared: &Parts, request: pb::BlobCreateRequest) -> Result<pb::BlobCreateResponse, Error> {
    let wrong = |reason: String| Error::invalid("content_sha256_base64", reason);
    let sha256 = STANDARD.decode(&request.content_sha256_base64).map_err(|error| wrong(error.to_string()))?;
    let sha256_hex = hex::encode(sha256);
    shared.files.path(&sha256_hex)?;
    let length = u64::try_from(request.content_length)
        .map_err(|_| Error::invalid("content_length", format!("{} is negative", request.content_length)))?;
    let blob_id = blob_id(&sha256_hex);
    let (one, many) = if length <= PART_BYTES {
        let url = shared.site.blob_url(&sha256_hex, length);
        let urls = pb::UploadUrlList { items: vec![url.clone()] };
        (UploadTypeOneof::UploadUrl(url), UploadTypesOneof::UploadUrls(urls))
    } else {
        let urls = shared.site.begin_parts(&sha256_hex, length).await?;
        let upload = pb::MultiPartUpload {
            part_length: PART_BYTES as i64,
            upload_urls: urls.parts,
            completion_url: urls.completion,
        };
        let uploads = pb::MultiPartUploadList { items: vec![upload.clone()] };
        (UploadTypeOneof::Multipart(upload), UploadTypesOneof::Multiparts(uploads))
    };
    Ok(pb::BlobCreateResponse {
        blob_ids: vec![blob_id.clone()],
        blob_id,
        // The older and the newer form of the same field.
        upload_type_oneof: Some(one),
        upload_types_oneof: Some(many),
    })
}

pub fn get(shared: &Parts, request: &pb::BlobGetRequest) -> Result<pb::BlobGetResponse, Error> {
    let sha256_hex = find(shared, &request.blob_id)?;
    Ok(pb::BlobGetResponse { download_url: shared.site.blob_url(sha256_hex, 0) })
}

/// Checks that the arguments of calls exist, so that the caller gets the error and not a container.
pub fn check_arguments(shared: &Parts, items: &[pb::FunctionPutInputsItem]) -> Result<(), Error> {
    let arguments = items.iter().filter_map(|item| item.input.as_ref()?.args_oneof.as_ref());
    for arguments in arguments {
        if let ArgsOneof::ArgsBlobId(id) = arguments {
            find(shared, id)?;
        }
    }
    Ok(())
}

fn find<'a>(shared: &Parts, blob_id: &'a str) -> Result<&'a str, Error> {
    let sha256_hex = blob_hash(blob_id).ok_or_else(|| Error::not_found("blob", blob_id))?;
    if shared.files.claim(sha256_hex)? { Ok(sha256_hex) } else { Err(Error::not_found("blob", blob_id)) }
}
