//! A change that has begun comes to its end, whether or not its client waits for that: a connection that breaks between
//! two steps would leave half of it.

use axum::{extract::Request, middleware::Next, response::Response};
use tracing::Instrument;

/// Answers what changes something in a task of its own.
pub(super) async fn finish(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let answer = tokio::spawn(next.run(request).in_current_span());
    // It is not aborted, so if it failed, it panicked; so does this then.
    answer.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::{Router, body::Body, http::Method, middleware::from_fn, routing::any};
    use tokio::sync::Notify;
    use tower::ServiceExt;

    use super::*;

    /// Sends a request whose client hangs up when its handler is half done; tells whether the other half is done.
    async fn survives(method: Method) -> bool {
        let (begun, go_on, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (half, rest, end) = (begun.clone(), go_on.clone(), done.clone());
        let handler = async move || {
            half.notify_one();
            rest.notified().await;
            end.notify_one();
        };
        let service = Router::new().route("/", any(handler)).layer(from_fn(finish));
        let request = Request::builder().method(method).body(Body::empty()).expect("a request");
        tokio::select! {
            _ = service.oneshot(request) => panic!("it waits"),
            () = begun.notified() => {}
        }
        go_on.notify_one();
        // What was dropped holds its end of it no more.
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
