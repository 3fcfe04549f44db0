//! Uploads and downloads over HTTP: of blobs and of the blocks of Volume files. Each URL is an unguessable capability
//! that an RPC returns; nothing else is served here.

mod blobs;
mod downloads;
mod stream;

use std::{fs::File, io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Code;

pub use self::blobs::PART_BYTES;
use self::downloads::Offers;
use crate::{error::Error, files::Files, ids::new_token};

/// The URLs that are served.
#[derive(Clone)]
pub struct Site {
    address: SocketAddr,
    /// Makes the URLs of blobs unguessable.
    key: Arc<str>,
    files: Files,
    offers: Arc<Mutex<Offers>>,
}

impl Site {
    /// URLs at an address that [`serve`] listens on.
    pub fn new(address: SocketAddr, files: Files) -> Self {
        Self { address, key: new_token().into(), files, offers: Arc::default() }
    }

    /// The store of the blobs.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// URLs for `length` bytes of a file from `start`, one per block.
    pub fn offer(&self, file: File, start: u64, length: u64) -> Vec<String> {
        downloads::offer(self, file, start, length)
    }

    /// Removes offers that have expired.
    pub fn trim_offers(&self) {
        downloads::trim(&self.offers);
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, site: Site, stop: CancellationToken) -> io::Result<()> {
    let keyed = Router::new()
        .route("/{key}/blobs/{sha256_hex}", get(blobs::get_blob).put(blobs::put_blob))
        .route("/{key}/uploads/{id}/{part}", put(blobs::put_part))
        .route("/{key}/uploads/{id}/complete/{sha256_hex}", post(blobs::complete))
        .route_layer(middleware::from_fn_with_state(site.clone(), check_key));
    let app = Router::new()
        .route("/blocks/{token}/{block}", get(downloads::get_block))
        .merge(keyed)
        .layer(middleware::from_fn_with_state(site.clone(), check_host))
        .with_state(site);
    axum::serve(listener, app).with_graceful_shutdown(async move { stop.cancelled().await }).await
}

/// Refuses requests under any other name, so that a web page cannot make a browser read from here.
async fn check_host(State(site): State<Site>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if host == Some(site.address.to_string().as_str()) {
        next.run(request).await
    } else {
        StatusCode::MISDIRECTED_REQUEST.into_response()
    }
}

async fn check_key(State(site): State<Site>, request: Request, next: Next) -> Response {
    let key = request.uri().path().split('/').nth(1);
    if key == Some(&*site.key) { next.run(request).await } else { StatusCode::NOT_FOUND.into_response() }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = tonic::Status::from(self);
        let code = match status.code() {
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::ResourceExhausted => StatusCode::INSUFFICIENT_STORAGE,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => {
                tracing::warn!(error = status.message(), "an upload or download failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        (code, status.message().to_owned()).into_response()
    }
}
