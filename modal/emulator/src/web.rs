//! Downloads of Volume files over plain HTTP, as the SDK does them: each URL is an unguessable capability for one range
//! of one file as it was when the URL was made. Nothing else is served here.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io,
    net::SocketAddr,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::ids::new_token;

/// The size of the ranges that a file is offered in; the SDK relies on it.
pub const BLOCK_BYTES: u64 = 8 << 20;
/// Most URLs at a time; the oldest lapse first. Bounds the files that are held open.
const MAX_OFFERS: usize = 4_096;

struct Offer {
    file: Arc<File>,
    start: u64,
    length: u64,
}

#[derive(Default)]
struct Offers {
    by_token: HashMap<String, Offer>,
    oldest_first: VecDeque<String>,
}

/// The URLs on offer.
#[derive(Clone)]
pub struct Downloads {
    address: SocketAddr,
    offers: Arc<Mutex<Offers>>,
}

impl Downloads {
    /// Offers at an address that [`serve`] listens on.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, offers: Arc::default() }
    }

    /// URLs for `length` bytes of a file from `start`, one per block.
    pub fn offer(&self, file: File, start: u64, length: u64) -> Vec<String> {
        let file = Arc::new(file);
        let end = start + length;
        let mut urls = Vec::new();
        let mut offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut from = start;
        while from < end {
            let until = ((from / BLOCK_BYTES + 1) * BLOCK_BYTES).min(end);
            let token = new_token();
            urls.push(format!("http://{}/blocks/{token}", self.address));
            offers.oldest_first.push_back(token.clone());
            offers.by_token.insert(token, Offer { file: file.clone(), start: from, length: until - from });
            from = until;
        }
        while offers.oldest_first.len() > MAX_OFFERS {
            if let Some(oldest) = offers.oldest_first.pop_front() {
                offers.by_token.remove(&oldest);
            }
        }
        urls
    }

    fn find(&self, token: &str) -> Option<(Arc<File>, u64, u64)> {
        let offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        offers.by_token.get(token).map(|offer| (offer.file.clone(), offer.start, offer.length))
    }
}

/// Answers downloads until `stop`.
pub async fn serve(listener: TcpListener, downloads: Downloads, stop: CancellationToken) -> io::Result<()> {
    let app = Router::new().route("/blocks/{token}", get(get_block)).with_state(downloads);
    axum::serve(listener, app).with_graceful_shutdown(async move { stop.cancelled().await }).await
}

async fn get_block(State(downloads): State<Downloads>, Path(token): Path<String>, headers: HeaderMap) -> Response {
    // Not reachable under any other name, so that a web page cannot be made to read from here.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if host != Some(downloads.address.to_string().as_str()) {
        return StatusCode::MISDIRECTED_REQUEST.into_response();
    }
    let Some((file, start, length)) = downloads.find(&token) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let read = tokio::task::spawn_blocking(move || {
        let mut block = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut block, start)?;
        Ok::<_, io::Error>(block)
    });
    match read.await.map_err(io::Error::other).flatten() {
        Ok(block) => ([(header::CONTENT_TYPE, "application/octet-stream")], block).into_response(),
        Err(error) => {
            tracing::warn!(%error, "a block of a Volume could not be read");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
