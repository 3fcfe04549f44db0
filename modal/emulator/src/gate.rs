//! What every request passes through: it refuses those without the token, counts the others, names methods that are not
//! there, and lets faults happen.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use modal_proto::SERVICE_PATH;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status, body::Body, codegen::http, server::NamedService, transport::server::Connected};
use tower::Service as TowerService;

use crate::{
    admin::{Action, When},
    containers::TASK_HEADER,
    shared::Shared,
};

/// The header with the secret of the client's token.
const SECRET_HEADER: &str = "x-modal-token-secret";

/// The service behind the gate.
#[derive(Clone)]
pub struct Gate<S> {
    service: S,
    shared: Arc<Shared>,
}

impl<S> Gate<S> {
    pub fn new(service: S, shared: Arc<Shared>) -> Self {
        Self { service, shared }
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = http::Response<Body>;

impl<S> TowerService<http::Request<Body>> for Gate<S>
where
    S: TowerService<http::Request<Body>, Response = Answer, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().strip_prefix(SERVICE_PATH).unwrap_or_default().to_owned();
        let (mut service, gate) = (self.service.clone(), self.shared.clone());
        Box::pin(async move {
            if !admits(&gate, &request) {
                let reason = "this is not the token of this Local Modal; `modal-local env` prints it";
                return Ok(Status::unauthenticated(reason).into_http());
            }
            gate.counts.add(&method);
            let fault = gate.faults.take(&method);
            let Some((when, action)) = fault else { return answered(service.call(request).await?, &method) };
            tracing::info!(rpc = method, ?when, ?action, "a fault happens");
            let caller = Caller::of(&gate, &request);
            if when == When::Before
                && let Some(answer) = caller.suffer(&gate, &action).await
            {
                return Ok(answer);
            }
            let answer = answered(service.call(request).await?, &method)?;
            match when {
                When::Before => Ok(answer),
                When::After => Ok(caller.suffer(&gate, &action).await.unwrap_or(answer)),
            }
        })
    }
}

/// Whether who sends a request may: a container of this server, or a client with its token.
fn admits(shared: &Shared, request: &http::Request<Body>) -> bool {
    let header = |name: &str| request.headers().get(name).map(http::HeaderValue::as_bytes).unwrap_or_default();
    shared.token.admits(header(SECRET_HEADER)) || {
        let task = str::from_utf8(header(TASK_HEADER)).unwrap_or_default();
        shared.read(|state| state.tokens.contains_key(task))
    }
}

/// Puts answers that tonic gives by itself into the form that the SDK understands.
fn answered(answer: Answer, method: &str) -> Result<Answer, Infallible> {
    match Status::from_header_map(answer.headers()).map(|status| status.code()) {
        Some(Code::Unimplemented) => {
            tracing::info!(rpc = method, "an RPC that is not implemented was called");
            let wanted = unspoken(method);
            Ok(Status::unimplemented(format!("Local Modal does not implement {wanted}")).into_http())
        }
        // The message was too large to be read. Modal says so in HTTP, and the SDK knows it only so.
        Some(Code::OutOfRange) => {
            let mut answer = http::Response::new(Body::empty());
            *answer.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
            Ok(answer)
        }
        _ => Ok(answer),
    }
}

/// The name of a method that is not spoken, and what it is for if its name does not say it.
fn unspoken(method: &str) -> &str {
    match method {
        "AuthTokenGet" => "AuthTokenGet, with which Sandboxes begin",
        _ => method,
    }
}

/// Who sent a request.
struct Caller {
    /// The container, if it is one.
    task_id: Option<String>,
    connection: Option<Cut>,
}

impl Caller {
    fn of(shared: &Shared, request: &http::Request<Body>) -> Self {
        let token = request.headers().get(TASK_HEADER).and_then(|token| token.to_str().ok());
        let task_id = token.and_then(|token| shared.read(|state| state.tokens.get(token).cloned()));
        Self { task_id, connection: request.extensions().get::<Cut>().cloned() }
    }

    /// Lets a fault happen; returns what takes the place of the answer, if anything does.
    async fn suffer(&self, shared: &Shared, action: &Action) -> Option<Answer> {
        match action {
            Action::Delay { seconds } => {
                tokio::time::sleep(Duration::try_from_secs_f64(*seconds).unwrap_or_default()).await;
                None
            }
            Action::Fail { code, message } => Some(Status::new(Code::from(*code), message).into_http()),
            Action::Disconnect => {
                if let Some(connection) = &self.connection {
                    connection.0.cancel();
                }
                // The connection goes, and this request with it.
                std::future::pending().await
            }
            Action::Kill => {
                if let Some(task_id) = &self.task_id {
                    shared.change_soon(|state, _| state.kill_task(task_id));
                }
                std::future::pending().await
            }
            Action::Preempt => {
                if let Some(task_id) = &self.task_id {
                    shared.change_soon(|state, _| state.preempt_task(task_id));
                }
                None
            }
        }
    }
}

/// The way to cut a connection.
#[derive(Clone)]
pub struct Cut(CancellationToken);

/// A connection that can be cut.
pub struct Link<S> {
    stream: S,
    cut: CancellationToken,
    is_cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Link<S> {
    pub fn new(stream: S) -> Self {
        let cut = CancellationToken::new();
        Self { stream, is_cut: Box::pin(cut.clone().cancelled_owned()), cut }
    }
}

impl<S> Connected for Link<S> {
    type ConnectInfo = Cut;

    fn connect_info(&self) -> Cut {
        Cut(self.cut.clone())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Link<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Link<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
