//! The daemon's log: to the systemd journal, to a bounded file if one was named, otherwise to stderr.

mod journal;
mod rotating;

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    sync::Arc,
};

use airflow_serverless_api::variables;
use tracing_subscriber::{
    Layer, Registry, filter::Targets, fmt, layer::SubscriberExt, reload, reload::Handle, util::SubscriberInitExt,
};

use self::{journal::Journal, rotating::RotatingFile};
use crate::settings::{Log, LogFormat};

#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("{origin} is not a filter for the log, such as `info,airflowd=debug`: {filter:?}")]
    Filter { origin: &'static str, filter: String },
    #[error("the log {path} cannot be written")]
    File { path: String, source: io::Error },
    #[error("the log is set up already")]
    Again(#[from] tracing_subscriber::util::TryInitError),
    #[error("the filter of the log cannot be changed")]
    Reload(#[from] reload::Error),
}

/// The log of this process, with the parts that can change at runtime.
pub struct Logging {
    filter: Handle<Targets, Registry>,
    file: Option<Arc<RotatingFile>>,
    destination: Destination,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Destination {
    File,
    Journal,
    Stderr,
}

/// Reports why the daemon exits.
pub struct LastWords {
    destination: Destination,
}

impl Logging {
    /// Sets up the log of this process, including panics. `file` replaces stderr.
    pub fn start(settings: &Log, file: Option<PathBuf>) -> Result<Self, LoggingError> {
        let file = file.map(|path| open(&path).map(Arc::new)).transpose()?;
        let (filter, handle) = reload::Layer::new(filter(settings)?);
        let (destination, lines) = match &file {
            Some(file) => (Destination::File, formatted(settings.format, fmt::layer().with_ansi(false), file.clone())),
            None if journal::is_stderr() => {
                // The journal adds the time and level of each line.
                let layer = fmt::layer().with_ansi(false).with_level(false).without_time();
                (Destination::Journal, formatted(settings.format, layer, Journal))
            }
            None => {
                let layer = fmt::layer().with_ansi(io::stderr().is_terminal());
                (Destination::Stderr, formatted(settings.format, layer, io::stderr))
            }
        };
        tracing_subscriber::registry().with(filter).with(lines).try_init()?;
        std::panic::set_hook(Box::new(|panic| {
            let backtrace = std::backtrace::Backtrace::capture();
            let at = panic.location().map(ToString::to_string).unwrap_or_default();
            let message = panic.payload_as_str().unwrap_or("?");
            tracing::error!(panic.message = message, panic.location = at, %backtrace, "a task of the daemon panicked");
        }));
        Ok(Self { filter: handle, file, destination })
    }

    /// Applies the filter of changed settings. (The format cannot change.)
    pub fn change(&self, settings: &Log) -> Result<(), LoggingError> {
        Ok(self.filter.reload(filter(settings)?)?)
    }

    /// Reopens the file after it was moved away.
    pub fn reopen(&self) -> Result<(), LoggingError> {
        let Some(file) = &self.file else { return Ok(()) };
        file.reopen().map_err(|source| LoggingError::File { path: file.path().display().to_string(), source })
    }

    /// Returns a reporter for the reason of the exit.
    pub fn last_words(&self) -> LastWords {
        LastWords { destination: self.destination }
    }
}

impl LastWords {
    /// Reports the message in the log, and on stderr unless that is the journal.
    pub fn tell(&self, message: &str) {
        if self.destination != Destination::Stderr {
            tracing::error!(error = message, "airflowd failed");
        }
        if self.destination != Destination::Journal {
            eprintln!("error: {message}");
        }
    }
}

/// Formats log lines in the chosen format. (The two formats have different types.)
fn formatted<W, T>(
    format: LogFormat,
    layer: fmt::Layer<Filtered, fmt::format::DefaultFields, fmt::format::Format<fmt::format::Full, T>>,
    writer: W,
) -> Box<dyn Layer<Filtered> + Send + Sync>
where
    W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
    T: fmt::time::FormatTime + Send + Sync + 'static,
{
    match format {
        LogFormat::Text => layer.with_writer(writer).boxed(),
        LogFormat::Json => layer.json().with_level(true).with_writer(writer).boxed(),
    }
}

type Filtered = tracing_subscriber::layer::Layered<reload::Layer<Targets, Registry>, Registry>;

/// The variable is for manual starts, and takes precedence over the settings.
fn filter(settings: &Log) -> Result<Targets, LoggingError> {
    let (origin, text) = match std::env::var(variables::LOG) {
        Ok(text) if !text.is_empty() => (variables::LOG, text),
        _ => ("`log.filter` of airflowd.yaml", settings.filter.clone()),
    };
    text.parse().map_err(|_| LoggingError::Filter { origin, filter: text.clone() })
}

fn open(path: &Path) -> Result<RotatingFile, LoggingError> {
    RotatingFile::open(path).map_err(|source| LoggingError::File { path: path.display().to_string(), source })
}
