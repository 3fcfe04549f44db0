//! Errors of requests, and the gRPC status that each becomes.

use std::io::ErrorKind;

use tonic::{Code, Status};

use crate::store::StoreError;

/// Why a request was not carried out. The message is written for the user of the SDK.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{kind} {id:?} does not exist")]
    NotFound { kind: &'static str, id: String },
    #[error("{kind} {id:?} exists already")]
    AlreadyExists { kind: &'static str, id: String },
    #[error("{what} is not valid: {reason}")]
    Invalid { what: &'static str, reason: String },
    #[error("{kind} {id:?} {reason}")]
    Conflict { kind: &'static str, id: String, reason: &'static str },
    #[error("Volume {id:?} cannot be reloaded: there are open files preventing the operation: {open}")]
    OpenFiles { id: String, open: String },
    #[error("{limit} inputs wait for Function {id:?} already; more are taken when some of them are done")]
    Backlog { id: String, limit: usize },
    #[error("{kind} {id:?} {reason}")]
    Full { kind: &'static str, id: String, reason: &'static str },
    #[error("this call is for containers, and the caller is not one that runs here")]
    NotAContainer,
    #[error("the server is shutting down")]
    ShuttingDown,
    #[error("could not save the change")]
    Store(#[from] StoreError),
    #[error("could not {action} {path:?}")]
    Io {
        action: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// A missing object.
    pub fn not_found(kind: &'static str, id: impl Into<String>) -> Self {
        Self::NotFound { kind, id: id.into() }
    }

    /// A value the client sent that makes no sense.
    pub fn invalid(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid { what, reason: reason.into() }
    }

    /// Wraps an I/O error; `path` is shown to the user, so give the one they know.
    pub fn io(action: &'static str, path: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NotFound,
            Self::AlreadyExists { .. } => Code::AlreadyExists,
            Self::Invalid { .. } => Code::InvalidArgument,
            Self::Conflict { .. } | Self::OpenFiles { .. } => Code::FailedPrecondition,
            Self::NotAContainer => Code::PermissionDenied,
            Self::ShuttingDown => Code::Unavailable,
            Self::Store(_) | Self::Backlog { .. } | Self::Full { .. } => Code::ResourceExhausted,
            Self::Io { source, .. } => match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Code::ResourceExhausted,
                ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::InvalidFilename => {
                    Code::InvalidArgument
                }
                _ => Code::Internal,
            },
        }
    }
}

/// An error with its causes, for a message to the user.
pub fn explain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Status::new(error.code(), explain(&error))
    }
}
