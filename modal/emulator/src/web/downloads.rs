//! Downloads of Volume files: each URL is a capability for one block of one file, with the contents it had when the URL
//! was made.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs::File,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use parking_lot::{Mutex, MutexGuard};

use super::{Site, stream::send};
use crate::{ids::new_token, volumes::BLOCK_BYTES};

/// The most files that are offered at a time; the oldest expire first. Bounds the number of open files.
const MAX_OFFERS: usize = 512;
/// How long a file is offered. If it is removed meanwhile, it takes space for as long.
const OFFERED: Duration = Duration::from_secs(3600);
/// How long a file stays offered after all of it was sent, for a client whose connection broke.
const SENT: Duration = Duration::from_secs(10);
/// The most such files.
const MAX_SENT: usize = 4;

struct Offer {
    file: Arc<File>,
    start: u64,
    end: u64,
    made: Instant,
    unsent: HashSet<u64>,
}

/// The files that are offered.
#[derive(Default)]
pub struct Offers {
    by_token: HashMap<String, Offer>,
    oldest_first: VecDeque<String>,
    /// Those that were sent completely, the earliest first.
    sent: VecDeque<String>,
}

impl Offers {
    /// Removes offers that have expired, and the oldest if there are too many.
    fn trim(&mut self) {
        let over = |offers: &Self| {
            let oldest = offers.oldest_first.front()?;
            let made = offers.by_token.get(oldest)?.made;
            (offers.by_token.len() > MAX_OFFERS || made.elapsed() > OFFERED).then(|| oldest.clone())
        };
        while let Some(oldest) = over(self) {
            self.end(&oldest);
        }
    }

    /// Records that a block was sent; returns whether it was the last one of its file.
    fn sent(&mut self, token: &str, block: u64) -> bool {
        let Some(offer) = self.by_token.get_mut(token) else { return false };
        let last = offer.unsent.remove(&block) && offer.unsent.is_empty();
        if last {
            self.sent.push_back(token.to_owned());
            if self.sent.len() > MAX_SENT {
                let first = self.sent[0].clone();
                self.end(&first);
            }
        }
        last
    }

    fn end(&mut self, token: &str) {
        self.by_token.remove(token);
        self.oldest_first.retain(|other| other != token);
        self.sent.retain(|other| other != token);
    }
}

fn lock(offers: &Mutex<Offers>) -> MutexGuard<'_, Offers> {
    offers.lock()
}

/// URLs for `length` bytes of a file from `start`, one per block.
pub fn offer(site: &Site, file: File, start: u64, length: u64) -> Vec<String> {
    if length == 0 {
        return Vec::new();
    }
    let (token, end) = (new_token(), start + length);
    let blocks = start / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES);
    let urls = blocks.clone().map(|n| site.url(&format!("blocks/{token}/{n}"))).collect();
    let offer = Offer { file: Arc::new(file), start, end, made: Instant::now(), unsent: blocks.collect() };
    let mut offers = lock(&site.offers);
    offers.oldest_first.push_back(token.clone());
    offers.by_token.insert(token, offer);
    offers.trim();
    urls
}

/// Removes offers that have expired.
pub fn trim(offers: &Mutex<Offers>) {
    lock(offers).trim();
}

/// Records that a block was sent. The offer of a file that was sent completely ends soon.
fn sent(offers: Arc<Mutex<Offers>>, token: String, block: u64) {
    if lock(&offers).sent(&token, block) {
        tokio::spawn(async move {
            tokio::time::sleep(SENT).await;
            lock(&offers).end(&token);
        });
    }
}

pub async fn get_block(State(site): State<Site>, Path((token, block)): Path<(String, u64)>) -> Response {
    let found = lock(&site.offers).by_token.get(&token).map(|offer| (offer.file.clone(), offer.start, offer.end));
    let range = |(file, start, end): (Arc<File>, u64, u64)| {
        let from = block.checked_mul(BLOCK_BYTES)?;
        let (from, until) = (from.max(start), from.checked_add(BLOCK_BYTES)?.min(end));
        (from < until).then_some((file, from, until - from))
    };
    match found.and_then(range) {
        Some((file, start, length)) => send(file, start, length, move || sent(site.offers, token, block)),
        None => (StatusCode::NOT_FOUND, "this URL has expired; request the file again").into_response(),
    }
}
