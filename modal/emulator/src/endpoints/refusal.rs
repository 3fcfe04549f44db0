//! Error responses that do not come from the app.

use std::time::Duration;

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::error::Error;

/// Why a request does not get a response from the app.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    /// Written for the author of the app.
    pub reason: String,
    /// When the client may try again.
    retry_after: Option<Duration>,
}

impl Refusal {
    pub fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), retry_after: None }
    }

    /// Adds the time after which the client may try again.
    pub fn retry_after(self, time: Duration) -> Self {
        Self { retry_after: Some(time), ..self }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let text = format!("modal-local: {}\n", self.reason);
        match self.retry_after {
            // In whole seconds, rounded up.
            Some(time) => {
                (self.status, [(header::RETRY_AFTER, time.as_secs_f64().ceil().to_string())], text).into_response()
            }
            None => (self.status, text).into_response(),
        }
    }
}
