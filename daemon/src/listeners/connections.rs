//! Connections: let in, limited in number and time, and ended.

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

/// Connections that one listener serves at once; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 512;
/// How long the head of a request may take from its first byte, and a connection may be idle.
const HEAD_LIMIT: Duration = Duration::from_secs(15);
/// Bytes of a request's head.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// After a failure to accept, such as for want of file descriptors: others may be closed meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that takes connections.
pub(super) trait Listener: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Why whoever has connected is not served.
    fn objection(stream: &Self::Stream) -> Option<String>;
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Ok(UnixListener::accept(self).await?.0)
    }

    /// The daemon's user and root are served, whatever the mode of the socket's file has become.
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
        // Answers are whole when they are written. Whoever has gone away already cannot be set so, and is noticed next.
        stream.set_nodelay(true).ok();
        Ok(stream)
    }

    /// Any user can connect to a port: the token tells who may use it.
    fn objection(_: &TcpStream) -> Option<String> {
        None
    }
}

/// Serves whoever connects, until `stop`; then waits for the connections to end, or ends them with `ended`.
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

/// Serves one connection to its end; once `stop` is cancelled, that is after the request under way.
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
        // Clients go away, are too slow, or do not speak HTTP: no fault of the daemon.
        tracing::debug!(error = error.to_string(), "a connection ended");
    }
}
