//! What the parts of the daemon speak of; nothing here does anything.

mod desired;
mod watched_file;

use chrono::{DateTime, Utc};

pub use self::{
    desired::{Deletion, DesiredState},
    watched_file::{Digest, Name, Record, Records, Stamp},
};

/// The time, as a parameter: tests and replays choose it.
pub type Clock = fn() -> DateTime<Utc>;
