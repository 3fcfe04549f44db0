//! The id of the command that a request sends to the scheduler.

use uuid::Uuid;

tokio::task_local! {
    /// Set for a request with an idempotency key: the scheduler carries out each id once, however often it receives it.
    /// No request sends more than one command that changes something.
    pub static FIXED: Uuid;
}

/// Returns the id for the command of the current request.
pub(super) fn next() -> Uuid {
    FIXED.try_with(|id| *id).unwrap_or_else(|_| Uuid::now_v7())
}
