//! Access to web functions.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};

use super::refusal::Refusal;
use crate::shared::Shared;

/// Accepts requests that name this machine. A web page elsewhere can make a browser send requests here under its own
/// host name; then the page could read the responses.
pub fn check_host(parts: &Parts) -> Result<(), Refusal> {
    let header = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = parts.uri.host().or(header).unwrap_or_default();
    if is_loopback(host) {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, "ask for 127.0.0.1 or localhost; no other name is answered"))
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "127.0.0.1" | "localhost" | "[::1]") || name.ends_with(".localhost")
}

/// Accepts requests that carry a proxy token: as `Modal-Key` and `Modal-Secret`, or both as a bearer token.
pub fn check_token(shared: &Shared, headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let get = |name: &str| headers.get(name).and_then(text);
    let bearer = get("authorization").and_then(|value| {
        let (id, secret) = value.strip_prefix("Bearer ")?.split_once('.')?;
        Some((id.to_owned(), secret.to_owned()))
    });
    let given = get("modal-key").zip(get("modal-secret")).or(bearer);
    match given {
        Some((id, secret)) if shared.read(|state| state.is_proxy_token(&id, &secret)) => Ok(()),
        Some(_) => Err(Refusal::new(StatusCode::UNAUTHORIZED, "the proxy token is not valid")),
        None => Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "this function asks for a proxy token: send Modal-Key and Modal-Secret (modal workspace proxy-tokens create)",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_hosts_are_accepted() {
        for name in ["127.0.0.1", "127.0.0.1:80", "localhost:8000", "[::1]:1", "app.localhost:1"] {
            assert!(is_loopback(name), "{name}");
        }
        for name in ["", "example.com", "127.0.0.1.example.com:80", "localhost.example.com", "notlocalhost", "::1"] {
            assert!(!is_loopback(name), "{name}");
        }
    }
}
