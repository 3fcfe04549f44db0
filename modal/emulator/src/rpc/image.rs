//! Images. Recipes are kept and never built: containers run in the interpreter of the options.

use modal_proto::{self as pb, generic_result::GenericStatus};
use sha2::{Digest, Sha256};

use super::{Answers, Parts, answers, session::IMAGE_BUILDER};
use crate::{error::Error, state::Image};

pub async fn get_or_create(
    shared: &Parts,
    request: pb::ImageGetOrCreateRequest,
) -> Result<pb::ImageGetOrCreateResponse, Error> {
    let image_id = if request.existing_image_id.is_empty() {
        let hash = hex::encode(Sha256::digest(&request.image));
        let image = Image { id: format!("im-{}", &hash[..32]), recipe: request.image };
        let id = image.id.clone();
        shared.change(|state, _| state.add_image(image)).await?;
        id
    } else {
        request.existing_image_id
    };
    Ok(pb::ImageGetOrCreateResponse { image_id, result: Some(success()), metadata: Some(metadata()) })
}

pub fn join(
    shared: &Parts,
    request: &pb::ImageJoinStreamingRequest,
) -> Result<Answers<pb::ImageJoinStreamingResponse>, Error> {
    check(shared, &request.image_id)?;
    let done = pb::ImageJoinStreamingResponse {
        result: Some(success()),
        eof: true,
        metadata: Some(metadata()),
        ..Default::default()
    };
    Ok(answers(vec![done]))
}

pub fn from_id(shared: &Parts, request: pb::ImageFromIdRequest) -> Result<pb::ImageFromIdResponse, Error> {
    check(shared, &request.image_id)?;
    Ok(pb::ImageFromIdResponse { image_id: request.image_id, metadata: Some(metadata()) })
}

fn check(shared: &Parts, image_id: &str) -> Result<(), Error> {
    let known = shared.read(|state| state.images.contains_key(image_id));
    if known { Ok(()) } else { Err(Error::not_found("Image", image_id)) }
}

fn success() -> pb::GenericResult {
    pb::GenericResult { status: GenericStatus::Success.into(), ..Default::default() }
}

fn metadata() -> pb::ImageMetadata {
    pb::ImageMetadata { image_builder_version: Some(IMAGE_BUILDER.to_owned()), ..Default::default() }
}
