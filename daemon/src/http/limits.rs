//! Limits on what requests may take: time, bytes, and how many there are at once.

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

use super::problem::{Failure, kinds};
use crate::airflow::MAX_FILE_BYTES;

/// Requests that are answered at once; further ones are refused, for their clients to try again. Connections have a
/// limit of their own, above this one.
const MAX_REQUESTS: usize = 256;
/// Answers that go on for as long as somebody listens. Each keeps its connection, and some have to be left.
const MAX_STREAMS: usize = 256;
/// Longest time until an answer begins. What is behind it has limits of its own, of which the longest is that of a DAG
/// file whose packages are installed before it is tried; the CLI's are longer.
pub(super) const ANSWER: Duration = Duration::from_secs(360);
/// The same, where the daemon knows the answer by itself. A body that comes too slowly has its own answer, so it is
/// later.
pub(super) const OWN_ANSWER: Duration = BODY.saturating_add(Duration::from_secs(10));
/// The same, where a request may wait for news.
pub(super) const NEWS: Duration = Duration::from_secs(45);
/// Longest time in which the body of a request has to be there.
pub(super) const BODY: Duration = Duration::from_secs(30);

/// Bytes of the largest body: beyond the largest DAG file, whose own limit answers with a better message.
pub(super) const LARGEST_BODY: usize = MAX_FILE_BYTES + (64 << 10);

/// Bytes of a body.
pub(super) fn json_bytes() -> DefaultBodyLimit {
    DefaultBodyLimit::max(1 << 20)
}

/// For DAG files, and imports of variables.
pub(super) fn file_bytes() -> DefaultBodyLimit {
    DefaultBodyLimit::max(LARGEST_BODY)
}

/// How many requests are still let in.
pub(super) fn requests() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_REQUESTS))
}

/// Refuses what is too much at once. Whether the daemon is well can always be asked.
pub(super) async fn shed(State(free): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let permit = free.try_acquire();
    let is_about_health = [routes::HEALTH, routes::VERSION].iter().any(|it| it.template == request.uri().path());
    if permit.is_err() && !is_about_health {
        let detail = format!("limit reached: {MAX_REQUESTS} requests are in progress");
        return Failure::new(&kinds::OVERLOADED, detail).hint("try again in a moment").into_response();
    }
    next.run(request).await
}

/// How many streams may still be opened.
pub(super) fn streams() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_STREAMS))
}

/// Refuses a stream that would be one too many.
pub(super) async fn stream(State(free): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let Ok(permit) = free.try_acquire_owned() else {
        let detail = format!("limit reached: {MAX_STREAMS} streams are open");
        return Failure::new(&kinds::OVERLOADED, detail).hint("close some streams").into_response();
    };
    let response = next.run(request).await;
    if !response.status().is_success() {
        return response;
    }
    // It lasts as long as the body does.
    response.map(|body| {
        Body::from_stream(body.into_data_stream().inspect(move |_| {
            let _held = &permit;
        }))
    })
}

/// Ends what takes too long. A stream that has begun is not touched.
pub(super) async fn within(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("no response within {} s", limit.as_secs());
            Failure::new(&kinds::TIME_LIMIT, detail).into_response()
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
