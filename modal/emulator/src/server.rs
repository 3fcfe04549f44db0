//! The gRPC server: one listener for clients and containers.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::TryStreamExt;
use modal_proto::modal_client_server::ModalClientServer;
use socket_path::SocketPath;
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::{
    interceptor::{Connection, Intercepted},
    options::{Listen, StartError},
    rpc::Service,
    shared::Shared,
    state::MAX_VALUE_BYTES,
};

/// Enough for a message with the largest value of a Dict, or with as many arguments as the SDK puts into one message.
/// Other data of that size is sent as blobs.
const MAX_MESSAGE_BYTES: usize = MAX_VALUE_BYTES + (4 << 20);

/// A bound listener.
pub enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

impl Listener {
    /// Binds the listener; returns it with the URL for the SDK.
    pub async fn bind(listen: &Listen) -> Result<(Self, String), StartError> {
        match listen {
            Listen::Unix(path) => {
                let path = std::path::absolute(path).map_err(StartError::io("find", path))?;
                // The SDK has to connect to it, too.
                if !socket_path::fits(&path) {
                    let length = path.as_os_str().len();
                    return Err(StartError::SocketPathTooLong { path, length });
                }
                let listener = bind_private(&path)
                    .map_err(|source| StartError::Bind { address: path.display().to_string(), source })?;
                let url = format!("unix://{}", path.display());
                Ok((Self::Unix(listener, path), url))
            }
            Listen::Tcp(address) if !address.ip().is_loopback() => Err(StartError::NotLoopback(*address)),
            Listen::Tcp(address) => {
                let bound = async { TcpListener::bind(address).await.and_then(|l| Ok((l.local_addr()?, l))) };
                let (address, listener) =
                    bound.await.map_err(|source| StartError::Bind { address: address.to_string(), source })?;
                Ok((Self::Tcp(listener), format!("http://{address}")))
            }
        }
    }
}

/// Binds a socket that only this user can connect to. To exclude others from the beginning, it is created in a private
/// folder and then moved.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let private =
        tempfile::Builder::new().prefix(".s").permissions(fs::Permissions::from_mode(0o700)).tempdir_in(folder)?;
    let unnamed = private.path().join("s");
    let listener = UnixListener::bind(SocketPath::new(&unnamed)?.get())?;
    fs::set_permissions(&unnamed, fs::Permissions::from_mode(0o600))?;
    fs::rename(&unnamed, path)?;
    Ok(listener)
}

/// Serves until `stop`, then until the running requests have ended.
pub async fn serve(
    listener: Listener,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let service = ModalClientServer::new(Service::new(shared.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let router = Server::builder().tcp_nodelay(true).add_service(Intercepted::new(service, shared));
    match listener {
        Listener::Tcp(listener) => {
            let incoming = TcpListenerStream::new(listener).map_ok(Connection::new);
            router.serve_with_incoming_shutdown(incoming, stop.cancelled()).await
        }
        Listener::Unix(listener, path) => {
            let incoming = UnixListenerStream::new(listener).map_ok(Connection::new);
            let served = router.serve_with_incoming_shutdown(incoming, stop.cancelled()).await;
            if let Err(error) = fs::remove_file(&path) {
                tracing::debug!(%error, "the socket could not be removed");
            }
            served
        }
    }
}
