//! The RPCs, one file per Modal noun: each decodes a request, makes one call and encodes the answer.

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
mod secret;
mod service;
mod session;
mod volume;

use std::{pin::Pin, sync::Arc};

use futures::{Stream, stream};
use tonic::{Request, Status};

pub use self::service::Service;
use crate::{containers::TASK_HEADER, error::Error, shared::Shared};

/// A stream of answers.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A stream of answers that are all there already.
fn answers<T: Send + 'static>(items: Vec<T>) -> Answers<T> {
    Box::pin(stream::iter(items.into_iter().map(Ok)))
}

/// The task of the container that sent a request.
fn calling_task<T>(shared: &Shared, request: &Request<T>) -> Result<String, Error> {
    let token =
        request.metadata().get(TASK_HEADER).and_then(|token| token.to_str().ok()).ok_or(Error::NotAContainer)?;
    shared.read(|state| state.tokens.get(token).cloned()).ok_or(Error::NotAContainer)
}

/// The key that all tries of one request share.
fn request_key<T>(request: &Request<T>) -> Option<String> {
    Some(request.metadata().get("x-idempotency-key")?.to_str().ok()?.to_owned())
}

/// Seconds from the wire as a duration; nonsense is no time at all.
fn seconds(seconds: f32) -> std::time::Duration {
    std::time::Duration::try_from_secs_f32(seconds).unwrap_or_default()
}

type Parts = Arc<Shared>;
