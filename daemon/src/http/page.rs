//! The page that explains the API: a few files in the binary, which read the API's description.

use axum::{
    Router,
    body::Bytes,
    http::{HeaderName, HeaderValue, header},
    response::IntoResponse,
    routing::{MethodRouter, get},
};
use utoipa::openapi::OpenApi;

const DOCUMENT: &str = "/openapi.json";

/// The page may only run its own scripts and call its own daemon.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Path, media type and content.
const FILES: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/page/page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
    ("/page/dom.js", "text/javascript; charset=utf-8", include_str!("page/dom.js")),
    ("/page/schema.js", "text/javascript; charset=utf-8", include_str!("page/schema.js")),
    ("/page/request.js", "text/javascript; charset=utf-8", include_str!("page/request.js")),
    ("/page/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

/// Whether this path is public: it contains no user data.
pub(super) fn is_public(path: &str) -> bool {
    path == DOCUMENT || FILES.iter().any(|(file, ..)| *file == path)
}

pub(super) fn routes() -> Router {
    FILES.iter().fold(Router::new(), |router, (path, media_type, content)| {
        router.route(path, get(async move || with_policy(media_type, *content)))
    })
}

/// Serves the API's description, serialized once.
pub(super) fn document<S: Clone + Send + Sync + 'static>(document: &OpenApi) -> MethodRouter<S> {
    let content = Bytes::from(serde_json::to_vec(document).unwrap_or_default());
    get(async move || with_policy("application/json", content))
}

/// Browsers may cache it, but revalidate each time in case the daemon was upgraded.
fn with_policy(media_type: &'static str, content: impl IntoResponse) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    ];
    (headers, content)
}
