//! Types shared by the modules of the daemon; they have no behavior.

mod desired;
mod watched_file;

use chrono::{DateTime, Utc};

pub use self::{
    desired::{Deletion, DesiredState},
    watched_file::{Digest, Name, Record, Records, Stamp},
};

/// The clock, as a parameter: tests and replays replace it.
pub type Clock = fn() -> DateTime<Utc>;
