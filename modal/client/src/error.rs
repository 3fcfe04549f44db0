//! The error of all calls.

use tonic::Code;

use crate::download::DownloadError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot reach Modal at {url}")]
    Connect { url: String, source: tonic::transport::Error },
    #[error("{url:?} is not a server URL: use http://, https:// or unix:///path")]
    Url { url: String },
    #[error("the token secret must be printable ASCII")]
    Token,
    #[error("{rpc} failed: {}", status.message())]
    Rpc { rpc: &'static str, status: Box<tonic::Status> },
    #[error("downloading {path} failed")]
    Download { path: String, source: DownloadError },
    #[error("{path} has {actual} bytes on the wire instead of {expected}")]
    Truncated { path: String, expected: u64, actual: u64 },
    #[error("{what} has a type that this client cannot read")]
    Unpickle { what: String, source: serde_pickle::Error },
    #[error("{what} cannot be written as a Python value")]
    Pickle { what: String, source: serde_pickle::Error },
    #[error("{function} raised: {message}")]
    Raised { function: String, message: String },
    #[error("{function} returned a result that this client cannot read: {message}")]
    Result { function: String, message: String },
}

impl Error {
    pub(crate) fn rpc(rpc: &'static str, status: tonic::Status) -> Self {
        Self::Rpc { rpc, status: Box::new(status) }
    }

    /// The gRPC status code, if the server answered with one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Rpc { status, .. } => Some(status.code()),
            _ => None,
        }
    }

    /// Whether the server refuses the token.
    pub fn is_refusal(&self) -> bool {
        matches!(self.code(), Some(Code::Unauthenticated | Code::PermissionDenied))
    }

    /// Whether the server could not be reached.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Connect { .. }) || self.code() == Some(Code::Unavailable)
    }

    /// Whether the object asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(Code::NotFound)
    }
}

/// `None` if the object does not exist.
pub(crate) fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
