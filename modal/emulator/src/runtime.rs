//! The threads of a server.

use std::{io, num::NonZero, thread::available_parallelism};

use tokio::runtime::{Builder, Runtime};

/// The most worker threads that a server of this kind can use, however large the machine.
const MOST_WORKERS: usize = 4;

/// A runtime on half of the processors; the other half is for the containers, which do the work. More threads than
/// necessary cost time, because they pass work to each other, and memory, because the allocator reserves some for each.
pub fn runtime() -> io::Result<Runtime> {
    let processors = available_parallelism().map_or(1, NonZero::get);
    Builder::new_multi_thread().worker_threads((processors / 2).clamp(1, MOST_WORKERS)).enable_all().build()
}
