//! Answers that are not the app's.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};

use crate::error::Error;

/// Why a request does not get the app's answer.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    /// Written for the author of the app.
    pub reason: String,
}

impl Refusal {
    pub fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, format!("modal-local: {}\n", self.reason)).into_response()
    }
}
