//! Limits on requests: time, bytes, and concurrency.

use std::{sync::Arc, time::Duration};

use airflow_serverless_api::routes;
use axum::{
    body::Body,
    extract::{DefaultBodyLimit, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use tokio::sync::Semaphore;

use super::problem::{Failure, problem_kinds};
use crate::airflow::MAX_FILE_BYTES;

/// Limit on concurrent requests; further ones are refused so that clients retry. Connections have a higher limit of
/// their own.
const MAX_REQUESTS: usize = 256;
/// Limit on open streams. Each occupies a connection, and some must stay free.
const MAX_STREAMS: usize = 256;
/// Longest time until a response begins. The operations behind it have limits of their own; the longest is for a DAG
/// file whose packages are installed before validation. The CLI's limits are longer.
pub(super) const ANSWER: Duration = Duration::from_secs(360);
/// The same for responses that need no other service. Longer than the limit for a slow body, which has its own error.
pub(super) const OWN_ANSWER: Duration = BODY.saturating_add(Duration::from_secs(10));
/// The same for requests that may wait for changes.
pub(super) const NEWS: Duration = Duration::from_secs(45);
/// Longest time for the body of a request to arrive.
pub(super) const BODY: Duration = Duration::from_secs(30);

/// Size limit of a body: above the limit for DAG files, which has a better error message.
pub(super) const LARGEST_BODY: usize = MAX_FILE_BYTES + (64 << 10);

/// Size limit of a JSON body.
pub(super) fn json_bytes() -> DefaultBodyLimit {
    DefaultBodyLimit::max(1 << 20)
}

/// Size limit for DAG files and imports of variables.
pub(super) fn file_bytes() -> DefaultBodyLimit {
    DefaultBodyLimit::max(LARGEST_BODY)
}

/// The permits for concurrent requests.
pub(super) fn requests() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_REQUESTS))
}

/// Refuses requests above the limit. Health checks always pass.
pub(super) async fn shed(State(free): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let permit = free.try_acquire();
    let is_about_health = [routes::HEALTH, routes::VERSION].iter().any(|it| it.template == request.uri().path());
    if permit.is_err() && !is_about_health {
        let detail = format!("limit reached: {MAX_REQUESTS} requests are in progress");
        return Failure::new(&problem_kinds::OVERLOADED, detail).hint("try again in a moment").into_response();
    }
    next.run(request).await
}

/// The permits for open streams.
pub(super) fn streams() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_STREAMS))
}

/// Refuses a stream above the limit.
pub(super) async fn stream(State(free): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let Ok(permit) = free.try_acquire_owned() else {
        let detail = format!("limit reached: {MAX_STREAMS} streams are open");
        return Failure::new(&problem_kinds::OVERLOADED, detail).hint("close some streams").into_response();
    };
    let response = next.run(request).await;
    if !response.status().is_success() {
        return response;
    }
    // The permit is held as long as the body exists.
    response.map(|body| {
        Body::from_stream(body.into_data_stream().inspect(move |_| {
            let _held = &permit;
        }))
    })
}

/// Aborts requests that take too long. A stream that has begun is not affected.
pub(super) async fn within(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("no response within {} s", limit.as_secs());
            Failure::new(&problem_kinds::TIME_LIMIT, detail).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, http::StatusCode, middleware::from_fn_with_state, routing::get};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn open_stream_counts_against_the_limit() {
        let endless = async || Body::from_stream(futures::stream::pending::<Result<String, std::io::Error>>());
        let layer = from_fn_with_state(Arc::new(Semaphore::new(1)), stream);
        let router = Router::new().route("/", get(endless)).layer(layer);
        let open = || router.clone().oneshot(Request::new(Body::empty()));
        let first = open().await.expect("an answer");
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(open().await.expect("an answer").status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        assert_eq!(open().await.expect("an answer").status(), StatusCode::OK);
    }
}
