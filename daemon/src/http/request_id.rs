//! Applies to every response, including errors: a request id that is also in the log, security headers for browsers,
//! and a problem in place of a panic.

use std::{
    any::Any,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use airflow_serverless_api::daemon::VERSION_HEADER;
use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::Instrument;

use super::problem::{Failure, problem_kinds};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Lets clients of another version detect a mismatch.
const VERSION: HeaderName = HeaderName::from_static(VERSION_HEADER);
const LONGEST_ID: usize = 64;

/// Gives a request its id, in the log and on its answer, and the answer the headers that all have.
pub(super) async fn add_headers(request: Request, next: Next) -> Response {
    let id = id_of(request.headers()).unwrap_or_else(new_id);
    let text = id.to_str().unwrap_or_default();
    let span = tracing::info_span!("request", id = text, method = %request.method(), path = request.uri().path());
    let mut response = next.run(request).instrument(span.clone()).await;
    tracing::debug!(parent: &span, status = response.status().as_u16(), "answered");
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(VERSION, HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let own_origin = HeaderValue::from_static("same-origin");
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), own_origin);
    // Pages set their own caching headers.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Returns the id chosen by the client, if it is a plain word.
fn id_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(REQUEST_ID)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_word = (1..=LONGEST_ID).contains(&id.len()) && id.as_bytes().iter().copied().all(is_plain);
    is_word.then(|| id.clone())
}

/// Generates an id that is unique in this process, and most likely globally.
fn new_id() -> HeaderValue {
    static RUN: LazyLock<u32> = LazyLock::new(rand::random);
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = format!("{:08x}-{}", *RUN, NEXT.fetch_add(1, Ordering::Relaxed));
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("unknown"))
}

/// The response if a handler has panicked. The panic message is in the log.
pub(super) fn panicked(_: Box<dyn Any + Send>) -> Response {
    Failure::new(&problem_kinds::INTERNAL, "the daemon failed while handling the request".to_owned()).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{
        Router,
        body::{Body, to_bytes},
        http::StatusCode,
        middleware::{from_fn, from_fn_with_state},
        routing::get,
    };
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;
    use crate::http::limits;

    /// Returns the response to a request whose handler fails.
    async fn answer(router: Router) -> (StatusCode, HeaderMap, Value) {
        let service =
            router.layer(tower_http::catch_panic::CatchPanicLayer::custom(panicked)).layer(from_fn(add_headers));
        let response = service.oneshot(Request::new(Body::empty())).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.expect("a body");
        (parts.status, parts.headers, serde_json::from_slice(&body).expect("JSON"))
    }

    #[tokio::test]
    async fn panic_becomes_an_internal_problem() {
        async fn handler() -> &'static str {
            panic!("the password is hunter2")
        }
        let (status, headers, problem) = answer(Router::new().route("/", get(handler))).await;
        assert_eq!(
            (status, headers[header::CONTENT_TYPE].as_bytes()),
            (500.try_into().expect("a status"), b"application/problem+json".as_slice())
        );
        assert_eq!(problem["type"], "urn:airflow-serverless:problem:internal");
        assert!(!problem.to_string().contains("hunter2") && headers.contains_key(REQUEST_ID), "{problem} {headers:?}");
    }

    #[tokio::test]
    async fn slow_request_ends_with_504() {
        let limit = from_fn_with_state(Duration::from_millis(5), limits::within);
        let slow = Router::new().route("/", get(std::future::pending::<&'static str>)).layer(limit);
        let (status, _, problem) = answer(slow).await;
        assert_eq!((status.as_u16(), &problem["type"]), (504, &"urn:airflow-serverless:problem:time-limit".into()));
    }

    #[test]
    fn only_plain_request_ids_are_accepted() {
        let chosen = |id: &str| {
            let id = HeaderValue::from_str(id).expect("a value");
            id_of(&HeaderMap::from_iter([(REQUEST_ID, id)])).is_some()
        };
        assert!(chosen("deploy-17_a.b") && chosen(&"x".repeat(LONGEST_ID)));
        for bad in ["", "a b", "a\"b", "a;b", &"x".repeat(LONGEST_ID + 1)] {
            assert!(!chosen(bad), "{bad}");
        }
        assert_ne!(new_id(), new_id());
    }
}
