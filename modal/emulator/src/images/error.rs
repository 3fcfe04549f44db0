//! Why an image cannot be built.

use crate::error::{Error, explain};

/// Why an image cannot be built. The text is for the user, and holds no secrets.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct BuildError(pub String);

impl From<Error> for BuildError {
    fn from(error: Error) -> Self {
        Self(explain(&error))
    }
}
