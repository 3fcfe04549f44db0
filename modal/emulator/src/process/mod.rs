//! Processes of this machine: their description in `/proc`, and the removal of orphaned ones.

mod reaper;
mod stat;

pub use self::{
    reaper::{kill_container, kill_orphans},
    stat::{Stat, handles_signal},
};

/// The SDK finds the description of its container by this variable. It also marks the processes of containers and
/// builds, so that those of a server that was killed can be found.
pub const ARGUMENTS_VARIABLE: &str = "MODAL_CONTAINER_ARGUMENTS_PATH";
