//! The threads of a server.

use std::{io, num::NonZero, thread::available_parallelism};

use tokio::runtime::{Builder, Runtime};

/// A runtime on half of the processors: the other half is for the containers, which do the work. More threads than it
/// needs cost a server time, as they hand what is to be done to each other.
pub fn runtime() -> io::Result<Runtime> {
    let processors = available_parallelism().map_or(1, NonZero::get);
    Builder::new_multi_thread().worker_threads((processors / 2).max(1)).enable_all().build()
}
