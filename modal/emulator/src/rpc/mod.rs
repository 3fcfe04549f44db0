//! The RPCs, one file per Modal noun: each decodes a request, makes one call and encodes the response.

mod app;
mod blob;
mod call;
mod container;
mod data;
mod dict;
mod function;
mod image;
mod logs;
mod mount;
mod proxy_token;
mod queue;
mod refusals;
mod secret;
mod service;
mod session;
mod volume;

use std::{pin::Pin, sync::Arc};

use futures::{Stream, stream};
use modal_proto::ListPagination;
use tonic::{Request, Status};

pub use self::service::Service;
use crate::{error::Error, interceptor::Caller, shared::Shared};

/// A stream of responses.
pub type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A stream of responses that are known already.
fn response_stream<T: Send + 'static>(items: Vec<T>) -> ResponseStream<T> {
    Box::pin(stream::iter(items.into_iter().map(Ok)))
}

/// The task of the container that sent a request.
fn calling_task<T>(request: &Request<T>) -> Result<String, Error> {
    let caller = request.extensions().get::<Caller>();
    caller.and_then(|caller| caller.task_id.clone()).ok_or(Error::NotAContainer)
}

/// The key that all tries of one request share.
fn request_key<T>(request: &Request<T>) -> Option<String> {
    Some(request.metadata().get("x-idempotency-key")?.to_str().ok()?.to_owned())
}

/// The part of a listing that a request wants: newest first, created before a time, and at most so many.
fn page<'a, T>(
    items: impl Iterator<Item = &'a T>,
    pagination: Option<ListPagination>,
    created_at: fn(&T) -> f64,
) -> Vec<&'a T> {
    let ListPagination { max_objects, created_before } = pagination.unwrap_or_default();
    let mut wanted: Vec<_> = items.filter(|item| created_before == 0.0 || created_at(item) < created_before).collect();
    wanted.sort_by(|a, b| created_at(b).total_cmp(&created_at(a)));
    wanted.truncate(usize::try_from(max_objects).ok().filter(|most| *most > 0).unwrap_or(usize::MAX));
    wanted
}

/// Seconds from the wire as a duration; an invalid number is no time at all.
fn seconds(seconds: f32) -> std::time::Duration {
    std::time::Duration::try_from_secs_f32(seconds).unwrap_or_default()
}

type Parts = Arc<Shared>;
