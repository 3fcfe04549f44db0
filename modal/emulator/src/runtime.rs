//! The threads of a server.

use std::{io, num::NonZero, thread::available_parallelism};

use tokio::runtime::{Builder, Runtime};

/// As many as a server of this kind can use, also on a large machine.
const MOST_WORKERS: usize = 4;

/// A runtime on half of the processors: the other half is for the containers, which do the work. More threads than it
/// needs cost a server time, as they hand what is to be done to each other, and memory, as the allocator keeps some for
/// each of them.
pub fn runtime() -> io::Result<Runtime> {
    let processors = available_parallelism().map_or(1, NonZero::get);
    Builder::new_multi_thread().worker_threads((processors / 2).clamp(1, MOST_WORKERS)).enable_all().build()
}
