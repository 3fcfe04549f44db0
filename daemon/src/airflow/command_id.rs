//! The id of the command that a request sends to the scheduler.

use uuid::Uuid;

tokio::task_local! {
    /// Set for a request that may be repeated: the scheduler carries out each id once, however often it gets it. No
    /// request sends more than one command that changes something.
    pub static FIXED: Uuid;
}

/// The id for the command of the request that is being answered.
pub(super) fn next() -> Uuid {
    FIXED.try_with(|id| *id).unwrap_or_else(|_| Uuid::now_v7())
}
