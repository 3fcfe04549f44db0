//! The server's own API, beside Modal's: HTTP on a Unix socket in the data folder, for `modal-local status` and for
//! tests that inject faults.
//!
//! `GET /status` returns a [`Status`], `GET /faults` the pending [`Fault`]s; `PUT /faults` replaces them.

mod status;

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use axum::{
    Json, Router,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use socket_path::SocketPath;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

pub use self::status::{AppStatus, ContainerState, ContainerStatus, FunctionStatus, Status};
use crate::{faults::Fault, shared::Shared};

/// The name of the socket in the data folder.
pub const SOCKET: &str = "admin.sock";

/// Binds the socket, for this user only. Other users cannot enter the data folder.
pub fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let path = data_dir.join(SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(SocketPath::new(&path)?.get())?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until `stop`.
pub async fn serve(listener: UnixListener, shared: Arc<Shared>, stop: CancellationToken) -> io::Result<()> {
    let path = shared.options.data_dir.join(SOCKET);
    let app = Router::new()
        .route("/status", get(get_status))
        .route("/faults", get(get_faults).put(put_faults))
        .with_state(shared);
    let served = axum::serve(listener, app).with_graceful_shutdown(async move { stop.cancelled().await }).await;
    if let Err(error) = fs::remove_file(&path) {
        tracing::debug!(%error, "the admin socket could not be removed");
    }
    served
}

async fn get_status(State(shared): State<Arc<Shared>>) -> Json<Status> {
    Json(Status::of(&shared))
}

async fn get_faults(State(shared): State<Arc<Shared>>) -> Json<Vec<Fault>> {
    Json(shared.faults.list())
}

async fn put_faults(State(shared): State<Arc<Shared>>, faults: Result<Json<Vec<Fault>>, JsonRejection>) -> Response {
    match faults {
        Ok(Json(faults)) => {
            shared.faults.replace(faults);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(rejection) => (StatusCode::BAD_REQUEST, rejection.body_text()).into_response(),
    }
}
