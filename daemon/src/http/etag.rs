//! Validators: `ETag` on reads, `If-None-Match` to skip unchanged content, `If-Match` to change only what was read.

use std::{collections::HashSet, sync::Arc};

use axum::{
    body::{Body, to_bytes},
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::problem::Failure;
use crate::error::{Error, Result};

/// Bytes of the hash that are used.
const LENGTH: usize = 16;

/// Returns the validator of a content: its hash, in quotes.
pub(super) fn of_bytes(content: &[u8]) -> String {
    format!("\"{}\"", hex::encode(&Sha256::digest(content)[..LENGTH]))
}

/// Returns the validator of a response with this body.
fn of(value: &impl Serialize) -> String {
    serde_json::to_vec(value).map(|json| of_bytes(&json)).unwrap_or_default()
}

/// Adds a validator to each JSON response; answers 304 if the client has it already.
pub(super) async fn conditional(request: Request, next: Next) -> Response {
    let known = (request.method() == Method::GET).then(|| request.headers().get(header::IF_NONE_MATCH).cloned());
    let response = next.run(request).await;
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    let (Some(known), StatusCode::OK, true) = (known, response.status(), is_json) else { return response };
    let (mut parts, body) = response.into_parts();
    // The body is in memory already; its handler limits its size.
    let Ok(body) = to_bytes(body, usize::MAX).await else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let etag = of_bytes(&body);
    if let Ok(value) = HeaderValue::from_str(&etag) {
        parts.headers.insert(header::ETAG, value);
    }
    if known.is_some_and(|known| names(&known, &etag)) {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_TYPE);
        parts.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, body.into())
}

/// Whether a list of validators contains this one, or is `*`. Weak validators match as well, as this is a read.
fn names(list: &HeaderValue, etag: &str) -> bool {
    let Ok(list) = list.to_str() else { return false };
    list.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag)
}

/// Refuses `If-Match` where it is not supported, instead of ignoring it.
pub(super) async fn refuse_unexpected(
    State(blind): State<Arc<HashSet<(Method, String)>>>,
    request: Request,
    next: Next,
) -> Response {
    if request.headers().contains_key(header::IF_MATCH)
        && let Some(route) = request.extensions().get::<MatchedPath>()
    {
        let asked = (request.method().clone(), route.as_str().to_owned());
        if blind.contains(&asked) {
            let detail = format!("{} {} does not take If-Match; nothing was changed", asked.0, asked.1);
            return Failure::invalid_request(StatusCode::BAD_REQUEST, detail).into_response();
        }
    }
    next.run(request).await
}

/// The `If-Match` precondition of a request.
pub(super) struct IfMatch(Option<HeaderValue>);

impl IfMatch {
    /// Fails unless `current`, as the API shows it, has the expected validator; `what` names it in the error.
    pub fn check(&self, what: &str, current: &impl Serialize) -> Result<()> {
        self.check_etag(what, || of(current))
    }

    /// Like [`check`](Self::check), but reads the current state only if needed. Not atomic: misses a concurrent write.
    pub async fn check_read<T: Serialize>(&self, what: &str, read: impl Future<Output = Result<T>>) -> Result<()> {
        if self.0.is_some() { self.check(what, &read.await?) } else { Ok(()) }
    }

    /// Like [`check`](Self::check), for a content that may be missing, which never matches. Returns `None` without a
    /// precondition, so that no read is needed.
    pub fn of_content(&self, what: &str) -> Option<impl FnOnce(Option<&[u8]>) -> Result<()>> {
        self.0.is_some().then_some(move |current: Option<&[u8]>| match current {
            None => Err(Error::PreconditionFailed(what.to_owned())),
            Some(content) => self.check_etag(what, || of_bytes(content)),
        })
    }

    fn check_etag(&self, what: &str, etag: impl FnOnce() -> String) -> Result<()> {
        match &self.0 {
            Some(expected) if !expects(expected, &etag()) => Err(Error::PreconditionFailed(what.to_owned())),
            _ => Ok(()),
        }
    }
}

/// Compares as RFC 9110 requires for `If-Match`: a weak validator never matches.
fn expects(list: &HeaderValue, etag: &str) -> bool {
    list.to_str().is_ok_and(|list| list.split(',').map(str::trim).any(|one| one == "*" || one == etag))
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Failure> {
        let value = one_value(&parts.headers, header::IF_MATCH)?;
        if value.as_ref().is_some_and(|value| !value.to_str().is_ok_and(is_list)) {
            let detail = "If-Match has to be `*`, or what `ETag` was when it was read, with its quotes".to_owned();
            return Err(Failure::invalid_request(StatusCode::BAD_REQUEST, detail));
        }
        Ok(Self(value))
    }
}

/// The syntax that [`is_list`] accepts, for the API's description.
pub(super) const LIST: &str = r#"^([*]|(W/)?"[!#-+.-~-]*"( *, *(W/)?"[!#-+.-~-]*")*)$"#;

/// Whether this is `*` or a list of validators. The daemon's own validators have no commas.
fn is_list(text: &str) -> bool {
    let is_validator = |text: &str| {
        let quoted = text.strip_prefix("W/").unwrap_or(text);
        let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        inner.is_some_and(|inner| inner.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'))
    };
    text == "*" || text.split(',').map(str::trim).all(is_validator)
}

/// Returns the value of a header that may appear at most once.
pub(super) fn one_value(
    headers: &HeaderMap,
    name: header::HeaderName,
) -> std::result::Result<Option<HeaderValue>, Failure> {
    let mut values = headers.get_all(&name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value.cloned()),
        _ => {
            Err(Failure::invalid_request(StatusCode::BAD_REQUEST, format!("the header {name} is there more than once")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).expect("a header")
    }

    #[test]
    fn weak_etags_match_if_none_match_but_not_if_match() {
        let etag = of_bytes(b"content");
        assert_ne!(etag, of_bytes(b"other"));
        for same in [etag.clone(), format!("\"x\", {etag}"), "*".to_owned()] {
            assert!(names(&list(&same), &etag) && expects(&list(&same), &etag), "{same}");
        }
        let weak = list(&format!("W/{etag}"));
        assert!(names(&weak, &etag) && !expects(&weak, &etag));
        assert!(!names(&list("\"x\""), &etag) && !expects(&list("\"x\""), &etag));
    }

    #[test]
    fn malformed_etag_lists_are_refused() {
        for good in ["*", "\"\"", "\"x\"", "W/\"x\"", "\"x\" ,W/\"y-z\", \"\""] {
            assert!(is_list(good), "{good}");
        }
        for bad in ["", "x", "\"", "\"x", "x\"", "W/", "W/x", "\"a\"b\"", "\"a b\"", "\"x\",", "*, \"x\"", "w/\"x\""] {
            assert!(!is_list(bad), "{bad}");
        }
    }
}
