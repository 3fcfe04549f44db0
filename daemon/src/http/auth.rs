//! Checks every request first: rejects what a web page could make a browser send, and on a port requires the token.
//!
//! Pages of other sites cannot read responses, as there are no CORS headers. They can send requests, so the daemon
//! rejects those that browsers mark as cross-origin (`Origin`, `Sec-Fetch-Site`). A site can also make its own name
//! resolve to this machine (DNS rebinding), so only loopback names are accepted as the host.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    page,
    problem::{Failure, problem_kinds},
};
use crate::token::Token;

const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// The listener that received a request.
#[derive(Clone)]
pub enum ListenerKind {
    /// A Unix socket: only the daemon's user and root are served there.
    Socket,
    /// A loopback port, which every user of the machine and every web page can reach.
    Port { address: SocketAddr, token: Arc<Token> },
}

/// Passes on a request, or responds with the reason for its refusal.
pub(super) async fn authorize(State(listener): State<ListenerKind>, request: Request, next: Next) -> Response {
    match listener.admit(&request) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

impl ListenerKind {
    fn admit(&self, request: &Request) -> Result<(), Failure> {
        self.check_host(request)?;
        self.check_origin(request.headers())?;
        self.check_token(request)
    }

    /// Requires exactly one host, in a form that does not depend on DNS.
    fn check_host(&self, request: &Request) -> Result<(), Failure> {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(Failure::new(
                &problem_kinds::INVALID_HOST,
                "a request must have exactly one Host header".to_owned(),
            ));
        };
        // An absolute request target also names a host.
        let target = request.uri().authority().map(|authority| authority.as_str());
        let names = [host.to_str().ok(), target.or(Some("localhost"))];
        if names.into_iter().all(|name| name.is_some_and(|name| self.is_own_host(name))) {
            return Ok(());
        }
        Err(Failure::new(&problem_kinds::HOST_NOT_ALLOWED, "the Host header names another host".to_owned()))
    }

    fn is_own_host(&self, host: &str) -> bool {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
            _ => (host, None),
        };
        let is_local = name.eq_ignore_ascii_case("localhost") || name == "127.0.0.1" || name == "[::1]";
        // The listener's own address is safe, too, even if it is another loopback address.
        let is_listened_to = matches!(self, Self::Port { address, .. } if name == address.ip().to_string());
        (is_local || is_listened_to) && port.is_none_or(|port| port.parse::<u16>().is_ok())
    }

    /// Accepts browser requests only from the daemon's own page.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let is_own_site = headers.get_all(SEC_FETCH_SITE).iter().all(|site| site == "same-origin" || site == "none");
        if headers.get_all(header::ORIGIN).iter().all(|origin| self.is_own_origin(origin)) && is_own_site {
            return Ok(());
        }
        Err(Failure::new(
            &problem_kinds::ORIGIN_NOT_ALLOWED,
            "the request comes from a page of another site".to_owned(),
        ))
    }

    /// Whether this is the origin of the daemon's page. A Unix socket has no page.
    fn is_own_origin(&self, origin: &HeaderValue) -> bool {
        let Self::Port { address, .. } = self else { return false };
        let host = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
        let is_own_port = |host: &str| match host.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()) {
            Some(port) => address.port() == port,
            None => address.port() == 80,
        };
        host.is_some_and(|host| self.is_own_host(host) && is_own_port(host))
    }

    /// Requires the token on a port for everything but the page that explains the API.
    fn check_token(&self, request: &Request) -> Result<(), Failure> {
        let Self::Port { token, .. } = self else { return Ok(()) };
        let reads = request.method() == Method::GET || request.method() == Method::HEAD;
        if reads && page::is_public(request.uri().path()) {
            return Ok(());
        }
        let mut given = request.headers().get_all(header::AUTHORIZATION).iter();
        let detail = match (given.next(), given.next()) {
            (None, _) => "the request has no token",
            (Some(value), None) if bearer(value).is_some_and(|given| token.admits(given)) => return Ok(()),
            _ => "the token is not the daemon's",
        };
        Err(Failure::new(&problem_kinds::UNAUTHORIZED, detail.to_owned()).hint(
            "send `Authorization: Bearer` and the token that `airflow-serverless daemon token` prints; \
             the Unix socket asks for none",
        ))
    }
}

/// Parses `Bearer <token>`; the scheme is case-insensitive.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: &str) -> ListenerKind {
        let folder = tempfile::tempdir().expect("a folder");
        let token = Token::open(folder.path().join("token")).expect("a token");
        ListenerKind::Port { address: address.parse().expect("an address"), token: Arc::new(token) }
    }

    #[test]
    fn only_loopback_hosts_are_accepted() {
        let listener = port("127.0.0.5:8793");
        for own in ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]", "[::1]:8793", "127.0.0.5:8793"] {
            assert!(listener.is_own_host(own), "{own}");
        }
        for other in [
            "",
            ":80",
            "localhost:",
            "localhost:x",
            "localhost.",
            "evil.example",
            "localhost.evil.example",
            "user@localhost",
            "127.0.0.2",
            "127.0.0.1.evil.example",
            "127.1",
            "::1",
            "[::1",
            "[::1]:80:80",
            "0.0.0.0",
            "localhost:80:80",
            "localhost:65536",
        ] {
            assert!(!listener.is_own_host(other), "{other}");
        }
        assert!(!ListenerKind::Socket.is_own_host("127.0.0.5"));
    }

    #[test]
    fn only_origins_of_this_listener_are_accepted() {
        let own =
            |listener: &ListenerKind, origin: &'static str| listener.is_own_origin(&HeaderValue::from_static(origin));
        let listener = port("127.0.0.1:8793");
        assert!(own(&listener, "http://127.0.0.1:8793") && own(&listener, "http://localhost:8793"));
        for other in [
            "null",
            "",
            "http://127.0.0.1",
            "http://127.0.0.1:80",
            "http://127.0.0.1:8794",
            "https://127.0.0.1:8793",
            "http://evil.example:8793",
            "http://127.0.0.1:8793/",
            "file://",
        ] {
            assert!(!own(&listener, other), "{other}");
        }
        assert!(own(&port("127.0.0.1:80"), "http://localhost"));
        assert!(!own(&ListenerKind::Socket, "http://localhost"));
    }
}
