//! Runs changes to completion even if the client disconnects: stopping between two steps would leave a half-done
//! change.

use axum::{extract::Request, middleware::Next, response::Response};
use tracing::Instrument;

/// Answers what changes something in a task of its own.
pub(super) async fn run_to_completion(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let answer = tokio::spawn(next.run(request).in_current_span());
    // The task is never aborted, so an error is its panic.
    answer.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::{Router, body::Body, http::Method, middleware::from_fn, routing::any};
    use tokio::sync::Notify;
    use tower::ServiceExt;

    use super::*;

    /// Sends a request whose client disconnects halfway through the handler; returns whether the handler finishes.
    async fn survives(method: Method) -> bool {
        let (begun, go_on, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (half, rest, end) = (begun.clone(), go_on.clone(), done.clone());
        let handler = async move || {
            half.notify_one();
            rest.notified().await;
            end.notify_one();
        };
        let service = Router::new().route("/", any(handler)).layer(from_fn(run_to_completion));
        let request = Request::builder().method(method).body(Body::empty()).expect("a request");
        tokio::select! {
            _ = service.oneshot(request) => panic!("it waits"),
            () = begun.notified() => {}
        }
        go_on.notify_one();
        // A dropped handler releases its clone of `done`.
        loop {
            tokio::select! {
                biased;
                () = done.notified() => return true,
                () = tokio::task::yield_now() => if Arc::strong_count(&done) == 1 { return false },
            }
        }
    }

    #[tokio::test]
    async fn change_completes_after_the_client_disconnects() {
        assert!(survives(Method::POST).await && survives(Method::DELETE).await);
        assert!(!survives(Method::GET).await, "nobody needs the answer");
    }
}
