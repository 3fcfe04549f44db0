//! The layer in front of all RPCs. In this order it authenticates the caller, counts the request, injects faults, and
//! names the method if it is not implemented.

mod caller;
mod connection;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use modal_proto::SERVICE_PATH;
use tonic::{Code, Status, body::Body, codegen::http, server::NamedService};
use tower::Service as TowerService;

use self::connection::ConnectionCloser;
pub use self::{caller::Caller, connection::Connection};
use crate::{
    faults::{Action, When},
    shared::Shared,
};

/// A service behind the interceptor.
#[derive(Clone)]
pub struct Intercepted<S> {
    service: S,
    shared: Arc<Shared>,
}

impl<S> Intercepted<S> {
    pub fn new(service: S, shared: Arc<Shared>) -> Self {
        Self { service, shared }
    }
}

impl<S: NamedService> NamedService for Intercepted<S> {
    const NAME: &'static str = S::NAME;
}

type Response = http::Response<Body>;

impl<S> TowerService<http::Request<Body>> for Intercepted<S>
where
    S: TowerService<http::Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().strip_prefix(SERVICE_PATH).unwrap_or_default().to_owned();
        let (mut service, shared) = (self.service.clone(), self.shared.clone());
        Box::pin(async move {
            let Some(caller) = Caller::authenticate(&shared, &request) else {
                let reason = "this is not the token of this Local Modal; `modal-local env` prints it";
                return Ok(Status::unauthenticated(reason).into_http());
            };
            shared.counts.add(&method);
            let fault = shared.faults.take(&method);
            let Some((when, action)) = fault else {
                request.extensions_mut().insert(caller);
                return Ok(for_sdk(service.call(request).await?, &method));
            };
            tracing::info!(rpc = method, ?when, ?action, "injecting a fault");
            let connection = request.extensions().get::<ConnectionCloser>().cloned();
            if when == When::Before
                && let Some(response) = inject_fault(&shared, &caller, connection.as_ref(), &action).await
            {
                return Ok(response);
            }
            request.extensions_mut().insert(caller.clone());
            let response = for_sdk(service.call(request).await?, &method);
            match when {
                When::Before => Ok(response),
                When::After => {
                    let replacement = inject_fault(&shared, &caller, connection.as_ref(), &action).await;
                    Ok(replacement.unwrap_or(response))
                }
            }
        })
    }
}

/// Changes tonic's own error responses into the form that the SDK understands.
fn for_sdk(response: Response, method: &str) -> Response {
    match Status::from_header_map(response.headers()).map(|status| status.code()) {
        Some(Code::Unimplemented) => {
            tracing::info!(rpc = method, "an RPC that is not implemented was called");
            let name = unimplemented_method_name(method);
            Status::unimplemented(format!("Local Modal does not implement {name}")).into_http()
        }
        // The message was too large to be read. Modal reports that by HTTP, and the SDK knows it only so.
        Some(Code::OutOfRange) => {
            let mut response = http::Response::new(Body::empty());
            *response.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
            response
        }
        _ => response,
    }
}

/// The name of a method that is not implemented, with its purpose if the name does not show it.
fn unimplemented_method_name(method: &str) -> &str {
    match method {
        "AuthTokenGet" => "AuthTokenGet, with which Sandboxes begin",
        _ => method,
    }
}

/// Injects a fault into a request; returns the response that replaces the real one, if any does.
async fn inject_fault(
    shared: &Shared,
    caller: &Caller,
    connection: Option<&ConnectionCloser>,
    action: &Action,
) -> Option<Response> {
    match action {
        Action::Delay { seconds } => {
            tokio::time::sleep(Duration::try_from_secs_f64(*seconds).unwrap_or_default()).await;
            None
        }
        Action::Fail { code, message } => Some(Status::new(Code::from(*code), message).into_http()),
        Action::Disconnect => {
            if let Some(connection) = connection {
                connection.close();
            }
            // This request ends with its connection.
            std::future::pending().await
        }
        Action::Kill => {
            if let Some(task_id) = &caller.task_id {
                shared.change_soon(|state, _| state.kill_task(task_id));
            }
            std::future::pending().await
        }
        Action::Preempt => {
            if let Some(task_id) = &caller.task_id {
                shared.change_soon(|state, _| state.preempt_task(task_id));
            }
            None
        }
    }
}
