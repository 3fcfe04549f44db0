//! Accepts connections, limits their number and time, and closes them.

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use rustix::process::geteuid;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Limit on connections per listener; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 512;
/// Time limit for the head of a request after its first byte, and for an idle connection.
const HEAD_LIMIT: Duration = Duration::from_secs(15);
/// Size limit of a request's head.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// Pause after a failed accept, for example without free file descriptors: other connections may close meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that accepts connections.
pub(super) trait Listener: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Returns why this client is not served, if so.
    fn objection(stream: &Self::Stream) -> Option<String>;
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Ok(UnixListener::accept(self).await?.0)
    }

    /// Serves the daemon's user and root only, whatever the mode of the socket's file.
    fn objection(stream: &UnixStream) -> Option<String> {
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == 0 || peer.uid() == geteuid().as_raw() => None,
            Ok(peer) => Some(format!("user {} is not the daemon's", peer.uid())),
            Err(error) => Some(format!("the user is not known: {error}")),
        }
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = TcpListener::accept(self).await?;
        // Responses are written as a whole. An error means that the client is gone, which the next read reports.
        stream.set_nodelay(true).ok();
        Ok(stream)
    }

    /// Any user can connect to a port: the token authenticates them.
    fn objection(_: &TcpStream) -> Option<String> {
        None
    }
}

/// Accepts connections until `stop`; then waits for them to end, or closes them on `ended`.
pub(super) async fn accept<L: Listener>(listener: L, api: Router, stop: CancellationToken, ended: CancellationToken) {
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    // The semaphore is never closed: only `stop` ends this.
    while let Some(Ok(permit)) = stop.run_until_cancelled(free.clone().acquire_owned()).await {
        let stream = match stop.run_until_cancelled(listener.accept()).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Some(Err(error)) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            None => break,
        };
        if let Some(objection) = L::objection(&stream) {
            tracing::warn!(objection, "a connection was refused");
            continue;
        }
        let (api, stop, ended) = (api.clone(), stop.clone(), ended.clone());
        connections.spawn(async move {
            ended.run_until_cancelled(serve(stream, api, stop)).await;
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Serves one connection until it ends; after `stop`, only until the current request is done.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, api: Router, stop: CancellationToken) {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).max_buf_size(MAX_HEAD_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(api)));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // Clients disconnect, are too slow, or do not speak HTTP: not an error of the daemon.
        tracing::debug!(error = error.to_string(), "a connection ended");
    }
}
