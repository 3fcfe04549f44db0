//! Who sent a request.

use tonic::{body::Body, codegen::http};

use crate::{containers::TASK_HEADER, shared::Shared};

/// The header with the secret of the client's token.
const SECRET_HEADER: &str = "x-modal-token-secret";

/// The sender of a request: a client with the server's token, or a container. It is resolved once and travels in the
/// request's extensions.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The container's task, if a container sent the request.
    pub task_id: Option<String>,
}

impl Caller {
    /// The sender of a request, or `None` if it has neither the server's token nor that of a running container.
    pub fn authenticate(shared: &Shared, request: &http::Request<Body>) -> Option<Self> {
        let header = |name: &str| request.headers().get(name).map(http::HeaderValue::as_bytes).unwrap_or_default();
        let task_id = match str::from_utf8(header(TASK_HEADER)) {
            Ok(token) if !token.is_empty() => shared.read(|state| state.tokens.get(token).cloned()),
            _ => None,
        };
        (task_id.is_some() || shared.token.admits(header(SECRET_HEADER))).then_some(Self { task_id })
    }
}
