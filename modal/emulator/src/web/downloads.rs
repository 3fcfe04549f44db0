//! Downloads of Volume files: each URL is a capability for one block of one file as it was when the URL was made.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::{Site, stream::send};
use crate::{ids::new_token, volumes::BLOCK_BYTES};

/// Most files on offer at a time; the oldest lapse first. Bounds the files that are held open.
const MAX_OFFERS: usize = 512;
/// How long a file is on offer, and with it the space that it takes if it is removed meanwhile.
const OFFERED: Duration = Duration::from_secs(3600);

struct Offer {
    file: Arc<File>,
    start: u64,
    end: u64,
    made: Instant,
}

/// The files on offer.
#[derive(Default)]
pub struct Offers {
    by_token: HashMap<String, Offer>,
    oldest_first: VecDeque<String>,
}

impl Offers {
    /// Lets go of offers that are too old, and of the oldest if there are too many.
    fn trim(&mut self) {
        let over = |offers: &Self| {
            let oldest = offers.by_token.get(offers.oldest_first.front()?)?;
            Some(offers.by_token.len() > MAX_OFFERS || oldest.made.elapsed() > OFFERED)
        };
        while over(self) == Some(true) {
            if let Some(oldest) = self.oldest_first.pop_front() {
                self.by_token.remove(&oldest);
            }
        }
    }
}

/// URLs for `length` bytes of a file from `start`, one per block.
pub fn offer(site: &Site, file: File, start: u64, length: u64) -> Vec<String> {
    let (token, end) = (new_token(), start + length);
    let blocks = start / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES);
    let urls =
        if length == 0 { Vec::new() } else { blocks.map(|n| site.url(&format!("blocks/{token}/{n}"))).collect() };
    let mut offers = site.offers.lock().unwrap_or_else(PoisonError::into_inner);
    offers.oldest_first.push_back(token.clone());
    offers.by_token.insert(token, Offer { file: Arc::new(file), start, end, made: Instant::now() });
    offers.trim();
    urls
}

/// Lets go of offers that are too old.
pub fn trim(offers: &Mutex<Offers>) {
    offers.lock().unwrap_or_else(PoisonError::into_inner).trim();
}

pub async fn get_block(State(site): State<Site>, Path((token, block)): Path<(String, u64)>) -> Response {
    let found = {
        let offers = site.offers.lock().unwrap_or_else(PoisonError::into_inner);
        offers.by_token.get(&token).map(|offer| (offer.file.clone(), offer.start, offer.end))
    };
    let range = |(file, start, end): (Arc<File>, u64, u64)| {
        let from = block.checked_mul(BLOCK_BYTES)?;
        let (from, until) = (from.max(start), from.checked_add(BLOCK_BYTES)?.min(end));
        (from < until).then_some((file, from, until - from))
    };
    match found.and_then(range) {
        Some((file, start, length)) => send(file, start, length),
        None => (StatusCode::NOT_FOUND, "this URL has lapsed; ask for the file again").into_response(),
    }
}
