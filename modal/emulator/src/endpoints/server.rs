//! Requests to servers, which are proxied to the port on which the user's code listens: bodies, responses and trailers
//! as streams, and upgraded connections, such as WebSockets, byte for byte.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, Version, header, uri},
    response::Response,
};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use modal_proto::HttpConfig;
use tokio::net::TcpStream;

use super::refusal::Refusal;
use crate::{shared::Shared, state::Route};

/// `Retry-After` when the server is at its `max_concurrency`, or its port cannot be reached.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Headers about one connection, not about the request or its response.
const HOP_HEADERS: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A request that a container processes, until this is dropped.
struct Open {
    shared: Arc<Shared>,
    task_id: String,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.change_soon(|state, now| state.end_server_request(&self.task_id, now));
    }
}

/// Proxies a request, or returns why it cannot.
pub async fn answer(
    shared: &Arc<Shared>,
    function_id: &str,
    config: &HttpConfig,
    client: SocketAddr,
    mut request: Request,
) -> Result<Response, Refusal> {
    let open = match shared.change_soon(|state, now| state.begin_server_request(function_id, now)) {
        Route::Container(task_id) => Open { shared: shared.clone(), task_id },
        Route::Full(most) => {
            let reason = format!("the server has as many requests as its max_concurrency allows, which is {most}");
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, reason).retry_after(RETRY_AFTER));
        }
        Route::Starting { retry_after, failure } => {
            let after = failure.map(|failure| format!(", after {failure}")).unwrap_or_default();
            let reason = format!("a container of the server is starting{after}");
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason).retry_after(retry_after));
        }
    };
    let stream = connect(config.port).await.map_err(|error| {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            tracing::info!(
                task.id = open.task_id,
                "a server does not listen any more; another container takes its place"
            );
            shared.change_soon(|state, _| state.server_lost(&open.task_id));
        }
        let reason = format!("the server cannot be reached on port {} ({error})", config.port);
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason).retry_after(RETRY_AFTER)
    })?;
    let upgrade = request.headers().get(header::UPGRADE).filter(|_| !config.h2_enabled).cloned();
    let of_client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    prepare(&mut request, client, upgrade, config.h2_enabled);
    let sent = send(shared, stream, request, config.h2_enabled).await;
    let mut response = sent.map_err(|error| {
        let reason = format!("the server ended the connection without an answer ({error})");
        Refusal::new(StatusCode::BAD_GATEWAY, reason)
    })?;
    match of_client.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS) {
        Some(of_client) => {
            let of_server = hyper::upgrade::on(&mut response);
            shared.endpoints.servers.spawn(relay(open, of_client, of_server));
            Ok(response.map(|_| Body::empty()))
        }
        None => {
            remove_hop_headers(response.headers_mut());
            // The request counts until its response is sent.
            Ok(response.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _held = &open;
                    frame
                }))
            }))
        }
    }
}

/// Connects to the port of a container, which is a port of this machine.
pub async fn connect(port: u32) -> io::Result<TcpStream> {
    let port = u16::try_from(port).map_err(io::Error::other)?;
    let addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
    let stream = TcpStream::connect(&addresses[..]).await?;
    // Without it, responses are only slower.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Adapts a request to the connection to the server.
fn prepare(request: &mut Request, client: SocketAddr, upgrade: Option<HeaderValue>, is_http2: bool) {
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| uri::PathAndQuery::from_static("/"));
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let host = authority.and_then(|authority| HeaderValue::try_from(authority).ok());
    let host = host.or_else(|| request.headers().get(header::HOST).cloned());
    let headers = request.headers_mut();
    remove_hop_headers(headers);
    // It was answered already.
    headers.remove(header::EXPECT);
    if let Ok(address) = HeaderValue::try_from(client.ip().to_string()) {
        headers.append(FORWARDED_FOR, address);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    headers.remove(header::HOST);
    let mut target = uri::Parts::default();
    target.path_and_query = Some(path);
    if is_http2 {
        target.scheme = Some(uri::Scheme::HTTP);
        target.authority = host.and_then(|host| uri::Authority::try_from(host.as_bytes()).ok());
        *request.version_mut() = Version::HTTP_2;
    } else {
        headers.extend(host.map(|host| (header::HOST, host)));
        *request.version_mut() = Version::HTTP_11;
    }
    // Its parts were valid before.
    *request.uri_mut() = Uri::from_parts(target).unwrap_or_default();
}

/// Removes headers about the other connection.
fn remove_hop_headers(headers: &mut HeaderMap) {
    let named = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named = named.flat_map(|names| names.split(',')).filter_map(|name| name.trim().parse::<HeaderName>().ok());
    for name in named.chain(HOP_HEADERS).collect::<Vec<_>>() {
        headers.remove(name);
    }
}

/// Sends a request on a new connection, which ends after the response.
async fn send(
    shared: &Shared,
    stream: TcpStream,
    request: Request,
    is_http2: bool,
) -> hyper::Result<hyper::Response<Incoming>> {
    let io = TokioIo::new(stream);
    // The users of a connection see how it fails.
    if is_http2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        shared.endpoints.servers.spawn(async move { drop(connection.await) });
        sender.send_request(request).await
    } else {
        let (mut sender, connection) = http1::handshake(io).await?;
        shared.endpoints.servers.spawn(async move { drop(connection.with_upgrades().await) });
        sender.send_request(request).await
    }
}

/// Copies bytes in both directions until both sides have ended, or this server stops.
async fn relay(open: Open, client: OnUpgrade, server: OnUpgrade) {
    let stopped = open.shared.close_streams.clone();
    let passed = async {
        let (client, server) = tokio::try_join!(client, server).map_err(io::Error::other)?;
        tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await
    };
    tokio::select! {
        passed = passed => if let Err(error) = passed {
            tracing::debug!(task.id = open.task_id, %error, "an upgraded connection broke off");
        },
        () = stopped.cancelled() => {}
    }
}
