//! Data that is streamed beside a call: the values that a generator yields, and the messages of a web request and its
//! response.
//!
//! A generator's values are kept in a file until its call is forgotten, so that a reader can resume after a broken
//! connection or a restart. A web request ends with its connection, so its messages only pass through memory. In both
//! cases a writer that is too far ahead of its reader waits.

mod pipe;
mod spool;

use std::{collections::HashMap, fs, io, path::PathBuf, sync::Arc};

use modal_proto::DataChunk;
use parking_lot::{Mutex, MutexGuard};

pub use self::{pipe::Exchange, spool::Spool};
use crate::error::Error;

/// The streams of all calls.
pub struct Streams {
    folder: PathBuf,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    spools: HashMap<String, Arc<Spool>>,
    exchanges: HashMap<String, Arc<Exchange>>,
}

/// The destination of a call's data.
pub enum Output {
    Generator(Arc<Spool>),
    Web(Arc<Exchange>),
}

impl Streams {
    /// Streams with their files in `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, open: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock()
    }

    /// The destination of a call's data.
    pub fn output(&self, call_id: &str) -> Output {
        match self.exchange(call_id) {
            Some(exchange) => Output::Web(exchange),
            None => Output::Generator(self.spool(call_id)),
        }
    }

    /// The values of a generator. The call must exist: its id is the name of a file.
    pub fn spool(&self, call_id: &str) -> Arc<Spool> {
        let spool = || Arc::new(Spool::new(self.folder.join(call_id)));
        self.lock().spools.entry(call_id.to_owned()).or_insert_with(spool).clone()
    }

    /// The messages of a web request that is under way.
    pub fn exchange(&self, call_id: &str) -> Option<Arc<Exchange>> {
        self.lock().exchanges.get(call_id).cloned()
    }

    /// Begins the messages of a web request, unless they have begun.
    pub fn begin_exchange(&self, call_id: &str) -> Arc<Exchange> {
        self.lock().exchanges.entry(call_id.to_owned()).or_default().clone()
    }

    /// Ends the messages of a web request. Those who have the stream can still read what was written.
    pub fn end_exchange(&self, call_id: &str) {
        let exchange = self.lock().exchanges.remove(call_id);
        if let Some(exchange) = exchange {
            exchange.close();
        }
    }

    /// Makes a generator's values durable, if it has any.
    pub async fn sync(&self, call_id: &str) -> Result<(), Error> {
        let spool = self.lock().spools.get(call_id).cloned();
        match spool {
            Some(spool) => spool.sync().await,
            None => Ok(()),
        }
    }

    /// Drops the values of a generator whose call is forgotten.
    pub fn forget(&self, call_id: &str) {
        let spool = self.lock().spools.remove(call_id);
        if let Some(spool) = spool {
            spool.drop_values();
        }
        match fs::remove_file(self.folder.join(call_id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, call.id = call_id, "what a generator yielded could not be removed");
            }
            _ => {}
        }
    }
}

/// The chunks after `last_index`, which are new: a repeated request repeats its chunks.
fn fresh(chunks: Vec<DataChunk>, last_index: u64) -> impl Iterator<Item = DataChunk> {
    chunks.into_iter().filter(move |chunk| chunk.index > last_index)
}
