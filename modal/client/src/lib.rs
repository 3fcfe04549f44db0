//! A typed client of Modal's API, for what the daemon needs: Apps and their output, Volumes, Dicts, Secrets and
//! Function calls.
//!
//! It needs no Python. An upload takes one RPC per distinct content and one for all paths; a Dict read takes one.
//! Values for Python are pickles of plain types (see [`pickle`]). Failed RPCs that Modal's own SDK would retry are retried
//! here, too (see [`wire`]).

#![warn(clippy::missing_errors_doc)]

mod app;
mod dict;
mod download;
mod error;
mod function;
mod output;
pub mod pickle;
mod secret;
mod volume;
mod wire;

pub use dict::Dict;
pub use download::DownloadError;
pub use error::{Error, Result};
pub use function::{Function, FunctionCall, NO_ARGUMENTS, Outcome};
pub use output::{Output, Piece, Source};
pub use secret::SecretOutcome;
pub use volume::{Entry, EntryKind, File, Volume};
pub use wire::{Client, Token};
