//! Images.

use std::time::{Duration, Instant};

use modal_proto::{self as pb, FileDescriptor, generic_result::GenericStatus};
use sha2::{Digest, Sha256};

use super::{Parts, ResponseStream, seconds, session::IMAGE_BUILDER};
use crate::{
    error::Error,
    images::{self, BuildError},
    state::{Built, Image, Now},
};

/// The longest that one request follows a build. The SDK repeats it.
const LONGEST_STREAM: Duration = Duration::from_secs(60);

pub async fn get_or_create(
    shared: &Parts,
    request: pb::ImageGetOrCreateRequest,
) -> Result<pb::ImageGetOrCreateResponse, Error> {
    let mut hash = Sha256::new();
    hash.update(&request.image);
    let id = format!("im-{}", &hex::encode(hash.finalize())[..32]);
    let now = Now::read();
    let image = Image {
        id: id.clone(),
        builder_version: request.builder_version,
        build_function_id: request.build_function_id,
        built: None,
        used_at: now.wall,
        recipe: request.image,
    };
    shared.change(|state, _| state.add_image(image)).await?;
    let built = images::get_or_build(shared, &id, request.force_build || request.ignore_cache).await?;
    let metadata = built.as_ref().map(|built| metadata(shared, &id, Some(built)));
    Ok(pb::ImageGetOrCreateResponse { image_id: id, result: built.map(|_| success()), metadata })
}

/// Follows a build until it ends or the request's time is up.
pub fn join(
    shared: &Parts,
    request: pb::ImageJoinStreamingRequest,
) -> Result<ResponseStream<pb::ImageJoinStreamingResponse>, Error> {
    let (shared, id) = (shared.clone(), request.image_id);
    let built = shared.read(|state| {
        let image = state.images.get(&id).ok_or_else(|| Error::not_found("Image", &id))?;
        Ok::<_, Error>(image.built.clone())
    })?;
    let log = match (shared.images.log(&id), built) {
        (Some(log), _) => log,
        (None, Some(built)) => {
            // It was built so long ago that its log was dropped.
            let end = end(&shared, &id, &Ok(built));
            return Ok(super::response_stream(vec![end]));
        }
        // The end of the last server interrupted its build.
        (None, None) => images::follow_or_build(&shared, &id, None),
    };
    let until = Instant::now() + seconds(request.timeout).min(LONGEST_STREAM);
    let stream = async_stream::try_stream! {
        let mut changes = log.changes();
        let mut position = request.last_entry_id.split('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        loop {
            changes.mark_unchanged();
            let chunk = log.after(position);
            if !chunk.lines.is_empty() {
                position = chunk.position;
                let task_logs = chunk.lines.into_iter().map(line).collect();
                yield pb::ImageJoinStreamingResponse { task_logs, entry_id: format!("{position}-0"), ..Default::default() };
            }
            if let Some(outcome) = chunk.outcome {
                yield end(&shared, &id, &outcome);
                break;
            }
            tokio::select! {
                // The sender lives as long as the log.
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(until.into()) => break,
            }
        }
    };
    Ok(Box::pin(stream))
}

pub fn from_id(shared: &Parts, request: pb::ImageFromIdRequest) -> Result<pb::ImageFromIdResponse, Error> {
    let image = shared.read(|state| state.images.get(&request.image_id).cloned());
    let image = image.ok_or_else(|| Error::not_found("Image", &request.image_id))?;
    let metadata = Some(metadata(shared, &image.id, image.built.as_ref()));
    Ok(pb::ImageFromIdResponse { image_id: image.id, metadata })
}

fn line(line: images::Line) -> pb::TaskLogs {
    pb::TaskLogs {
        data: line.text + "\n",
        timestamp: line.at,
        file_descriptor: FileDescriptor::Stdout.into(),
        ..Default::default()
    }
}

fn end(shared: &Parts, id: &str, outcome: &Result<Built, BuildError>) -> pb::ImageJoinStreamingResponse {
    let result = match outcome {
        Ok(_) => success(),
        Err(_) if shared.close_streams.is_cancelled() => result(GenericStatus::Terminated, String::new()),
        Err(BuildError(text)) => result(GenericStatus::Failure, text.clone()),
    };
    let metadata = outcome.as_ref().ok().map(|built| metadata(shared, id, Some(built)));
    pb::ImageJoinStreamingResponse { result: Some(result), eof: true, metadata, ..Default::default() }
}

fn success() -> pb::GenericResult {
    result(GenericStatus::Success, String::new())
}

fn result(status: GenericStatus, exception: String) -> pb::GenericResult {
    pb::GenericResult { status: status.into(), exception, ..Default::default() }
}

fn metadata(shared: &Parts, id: &str, built: Option<&Built>) -> pb::ImageMetadata {
    let builder = shared.read(|state| state.images.get(id).map(|image| image.builder_version.clone()));
    pb::ImageMetadata {
        python_version_info: built.map(|built| format!("Python {}", built.version)),
        workdir: images::working_folder(shared, id),
        image_builder_version: Some(builder.filter(|v| !v.is_empty()).unwrap_or_else(|| IMAGE_BUILDER.to_owned())),
        ..Default::default()
    }
}
