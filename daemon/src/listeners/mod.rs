//! Where the API is served: on a Unix socket, optionally on a loopback port, and on sockets from a service manager.
//!
//! [`Listeners::open`] binds all of them or fails; [`Listeners::serve`] serves until stopped. The [`Door`] determines
//! the authentication of a request.

mod activation;
mod connections;

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use airflow_serverless_api::home::Home;
use axum::Router;
use socket_path::SocketPath;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use activation::Activation;

use crate::{
    http::{ListenerKind, with_listener_policy},
    loopback::{AddressError, LoopbackAddress},
    token::{Token, TokenError},
};

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("{action} {path} failed")]
    Files { action: &'static str, path: String, source: io::Error },
    #[error("listening on {address} failed")]
    Port { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(
        "the service manager handed over descriptor {descriptor}, which is neither a listening Unix stream socket nor a \
         listening TCP socket; correct the ListenStream= lines of the socket unit"
    )]
    Unusable { descriptor: usize },
    #[error("the socket that the service manager handed over as descriptor {descriptor} cannot be used")]
    Handed { descriptor: usize, source: io::Error },
}

impl ListenError {
    /// Whether another start would fail for the same reason.
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::Address(_) | Self::Unusable { .. })
    }
}

type Result<T, E = ListenError> = std::result::Result<T, E>;

/// All sockets that serve the API.
#[derive(Default)]
pub struct Listeners {
    unix: Vec<UnixListener>,
    /// The path of the home's socket, if it is served. (The address of a socket with a long path differs from it.)
    home_socket: Option<PathBuf>,
    tcp: Vec<(TcpListener, ListenerKind)>,
    /// What belongs to this daemon and goes with it: its socket, and the file that tells its address.
    _files: Vec<Removed>,
}

impl Listeners {
    /// Takes over the passed sockets and binds the rest: the home's socket unless a Unix socket was passed, and the
    /// port.
    pub fn open(home: &Home, port: Option<LoopbackAddress>, activation: Activation) -> Result<Self> {
        let mut listeners = Self::default();
        let handed = activation.take()?;
        if handed.unix.is_empty() {
            let path = home.socket();
            listeners.unix.push(bind_socket(&path)?);
            listeners.home_socket = Some(path.clone());
            listeners._files.push(Removed(path));
        }
        for (index, socket) in handed.unix.into_iter().enumerate() {
            let taken = socket.set_nonblocking(true).and_then(|()| UnixListener::from_std(socket));
            listeners.unix.push(taken.map_err(|source| ListenError::Handed { descriptor: 3 + index, source })?);
        }
        let mut sockets = handed.tcp;
        if let Some(address) = port.map(LoopbackAddress::get) {
            sockets.push(std::net::TcpListener::bind(address).map_err(|source| ListenError::Port { address, source })?);
        }
        listeners.add_ports(home, sockets)?;
        Ok(listeners)
    }

    /// Serves these sockets with token authentication, and writes their addresses to a file.
    fn add_ports(&mut self, home: &Home, sockets: Vec<std::net::TcpListener>) -> Result<()> {
        let addresses = Removed(home.addresses());
        addresses.remove()?;
        if sockets.is_empty() {
            return Ok(());
        }
        let token = Arc::new(Token::open(home.token())?);
        let mut lines = String::new();
        for socket in sockets {
            let unknown = |source| ListenError::Port { address: SocketAddr::from(([127, 0, 0, 1], 0)), source };
            let address = socket.local_addr().map_err(unknown)?;
            let failed = |source| ListenError::Port { address, source };
            socket.set_nonblocking(true).map_err(failed)?;
            let listener = TcpListener::from_std(socket).map_err(failed)?;
            self.tcp.push((listener, ListenerKind::Port { address, token: token.clone() }));
            lines.push_str(&format!("{address}\n"));
        }
        std::fs::write(&addresses.0, lines).map_err(|source| files("writing", &addresses.0, source))?;
        self._files.push(addresses);
        Ok(())
    }

    /// Returns where the API is served, for messages.
    pub fn places(&self) -> Vec<String> {
        let path = |listener: &UnixListener| {
            let address = listener.local_addr().ok();
            let path = address.as_ref().and_then(|address| address.as_pathname());
            let path = self.home_socket.as_deref().or(path);
            path.map_or_else(|| "a socket without a path".to_owned(), |path| path.display().to_string())
        };
        let port = |(_, kind): &(TcpListener, ListenerKind)| match kind {
            ListenerKind::Port { address, .. } => format!("http://{address}"),
            ListenerKind::Socket => String::new(),
        };
        self.unix.iter().map(path).chain(self.tcp.iter().map(port)).collect()
    }

    /// Serves the API until `stop` is canceled; gives requests in progress another `grace`.
    pub async fn serve(self, api: Router, stop: CancellationToken, grace: Duration) {
        let tracker = TaskTracker::new();
        let ended = CancellationToken::new();
        for listener in self.unix {
            let api = with_listener_policy(api.clone(), ListenerKind::Socket);
            tracker.spawn(connections::accept(listener, api, stop.clone(), ended.clone()));
        }
        for (listener, kind) in self.tcp {
            tracker.spawn(connections::accept(
                listener,
                with_listener_policy(api.clone(), kind),
                stop.clone(),
                ended.clone(),
            ));
        }
        tracker.close();
        stop.cancelled().await;
        if tokio::time::timeout(grace, tracker.wait()).await.is_err() {
            tracing::warn!(seconds = grace.as_secs(), "requests under way have not ended in time and are cut off");
            ended.cancel();
            tracker.wait().await;
        }
    }
}

/// A file that is removed when this is dropped.
struct Removed(PathBuf);

impl Removed {
    fn remove(&self) -> Result<()> {
        match std::fs::remove_file(&self.0) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(files("removing", &self.0, source)),
            _ => Ok(()),
        }
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(error = crate::report::chain(&error), "a file was left behind");
        }
    }
}

/// Binds the socket and replaces one left by a killed daemon: holding the home's lock ensures that it is unused.
fn bind_socket(path: &Path) -> Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(files("removing", path, source)),
        _ => {}
    }
    let bound = SocketPath::new(path).and_then(|short| UnixListener::bind(short.get()));
    let listener = bound.map_err(|source| files("binding", path, source))?;
    // The folder is private already; this protects the socket even if the folder is not.
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, private).map_err(|source| files("protecting", path, source))?;
    Ok(listener)
}

fn files(action: &'static str, path: &Path, source: io::Error) -> ListenError {
    ListenError::Files { action, path: path.display().to_string(), source }
}
