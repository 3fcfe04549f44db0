//! `Idempotency-Key`: a request that is repeated because its response was lost is carried out once and gets that
//! response.
//!
//! The key is recorded before the work begins, and the response once it has succeeded. A daemon that is killed in
//! between repeats the work with the same ids: the id of a command to the scheduler is derived from the record of the
//! key, and the scheduler carries out each id once. The same applies to failed requests, which may have been carried
//! out nevertheless. Refused requests are not kept: they changed nothing and may succeed later.

use std::collections::HashSet;

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    Services,
    document::EVENT_STREAM,
    etag,
    extract::in_time,
    limits::LARGEST_BODY,
    problem::{Answer, Failure},
};
use crate::{airflow::command_id, error::Error, report::chain, store::KeptAnswer};

pub(super) const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Marks a replayed response.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const LONGEST_KEY: usize = 255;

/// The keys of requests under way.
pub(super) type UnderWay = Mutex<HashSet<String>>;

/// Replays the response to a POST with a known key, or handles it.
pub(super) async fn once(State(services): State<Services>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(&HEADER) {
        return next.run(request).await;
    }
    answer(services, request, next).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(services: Services, request: Request, next: Next) -> Answer<Response> {
    let (parts, body) = request.into_parts();
    let key = key(&parts)?;
    let too_large = |_| Failure::invalid_request(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large".to_owned());
    let body = in_time(to_bytes(body, LARGEST_BODY)).await?.map_err(too_large)?;
    let Some(_held) = Held::new(&services.under_way, &key) else { return Err(Error::IdempotencyKeyInUse.into()) };
    let hash = hash_of(&parts, &body);
    let base = &services.base;
    let known = base.store.begin_idempotent(&key, &hash, base.now()).await.map_err(Error::from)?;
    if known.request != hash {
        return Err(Error::IdempotencyKeyReused.into());
    }
    let id = derived_command_id(&key, known.created_at);
    if let Some(kept) = known.answer() {
        return Ok(replay(kept));
    }
    let response = command_id::FIXED.scope(id, next.run(Request::from_parts(parts, Body::from(body)))).await;
    let is_refused = response.status().is_client_error();
    let (response, kept) = keep(response).await;
    let recorded = match kept {
        Some(kept) => base.store.end_idempotent(&key, &kept).await,
        None if is_refused => base.store.forget_idempotent_key(&key).await,
        None => Ok(()),
    };
    if let Err(error) = recorded {
        // The work is done; a repetition uses the same ids.
        tracing::error!(error = chain(&error), "an answer was not recorded");
    }
    Ok(response)
}

fn key(parts: &Parts) -> Answer<String> {
    let invalid = || {
        let detail = format!("Idempotency-Key must be 1 to {LONGEST_KEY} printable ASCII characters");
        Failure::invalid_request(StatusCode::BAD_REQUEST, detail)
    };
    let value = etag::one_value(&parts.headers, HEADER)?.ok_or_else(invalid)?;
    let key = value.to_str().map_err(|_| invalid())?;
    if (1..=LONGEST_KEY).contains(&key.len()) { Ok(key.to_owned()) } else { Err(invalid()) }
}

/// The same for each try of a request, and another one once it was refused and forgotten.
fn derived_command_id(key: &str, begun: DateTime<Utc>) -> Uuid {
    let digest = Sha256::digest(format!("{begun:?} {key}"));
    Uuid::from_bytes(std::array::from_fn(|index| digest[index]))
}

fn hash_of(parts: &Parts, body: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(parts.uri.path_and_query().map_or("", |path| path.as_str()));
    hasher.update([0]);
    hasher.update(body);
    hex::encode(hasher.finalize())
}

/// Returns the response, and the copy to keep if it is a success.
async fn keep(response: Response) -> (Response, Option<KeptAnswer>) {
    let kind = response.headers().get(header::CONTENT_TYPE);
    // A stream has no complete body, and is useful only while a client reads it.
    let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(EVENT_STREAM.as_bytes()));
    if is_stream || !response.status().is_success() {
        return (response, None);
    }
    let (parts, body) = response.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return (StatusCode::INTERNAL_SERVER_ERROR.into_response(), None);
    };
    let location = parts.headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let kept = KeptAnswer { status: parts.status.as_u16(), location, body: body.to_vec() };
    (Response::from_parts(parts, Body::from(body)), Some(kept))
}

fn replay(kept: KeptAnswer) -> Response {
    let status = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::OK);
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], kept.body).into_response();
    let headers = response.headers_mut();
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    if let Some(location) = kept.location.and_then(|location| HeaderValue::from_str(&location).ok()) {
        headers.insert(header::LOCATION, location);
    }
    response
}

/// The key of a request in progress; released on drop, even if the connection breaks.
struct Held<'a>(&'a UnderWay, String);

impl<'a> Held<'a> {
    fn new(under_way: &'a UnderWay, key: &str) -> Option<Self> {
        let is_new = under_way.lock().insert(key.to_owned());
        is_new.then(|| Self(under_way, key.to_owned()))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}
