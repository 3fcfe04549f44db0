//! Types that the modules of the daemon share; they have no behavior.

mod desired;
mod watched_file;

use chrono::{DateTime, Utc};

pub use self::{
    desired::{Deletion, DesiredState},
    watched_file::{Digest, Name, Record, Records, Stamp},
};

/// The time, as a parameter: tests and replays choose it.
pub type Clock = fn() -> DateTime<Utc>;
