//! Web functions over HTTP: each has its own port on loopback, and keeps it as long as it is free.
//!
//! A request becomes an input of the function; its body and the response are streams beside the call. It waits for a
//! container like any other input. It is not stored: it ends with its connection. Servers have such ports, too, but
//! their requests are proxied.

mod access;
mod http;
mod params;
pub mod ports;
mod refusal;
mod request;
mod scope;
mod server;
mod websocket;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    extract::{ConnectInfo, FromRequestParts, Request, State, WebSocketUpgrade},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::Response,
    serve::ListenerExt,
};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

pub use self::server::connect;
use self::{ports::Key, refusal::Refusal, request::WebCall};
use crate::{error::Error, shared::Shared, state::Definition};

/// The range of preferred ports, so that an app that is run repeatedly keeps its URLs. It is below the ports that the
/// system uses for outgoing connections.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 12_000;

/// The target of one port.
#[derive(Clone)]
struct Target {
    shared: Arc<Shared>,
    key: Key,
}

/// Opens a port for each web method of a function, or for the function itself if it is a server.
pub async fn reserve(shared: &Arc<Shared>, definition: &Definition) -> Result<(), Error> {
    for method in definition.endpoint_names() {
        open(shared, (definition.function_id.clone(), method.to_owned())).await?;
    }
    Ok(())
}

/// Opens the ports of the functions of the last run again.
pub async fn open_all(shared: &Arc<Shared>) {
    for key in shared.read(|state| state.endpoints()) {
        if let Err(error) = open(shared, key.clone()).await {
            tracing::error!(function.id = key.0, %error, "a web function cannot be reached");
        }
    }
}

async fn open(shared: &Arc<Shared>, key: Key) -> Result<(), Error> {
    if shared.endpoints.is_open(&key) {
        return Ok(());
    }
    let wanted = shared.read(|state| {
        let function = state.function(&key.0)?;
        let app = state.app(&function.app_id)?;
        let usual = usual_port(&[&app.environment, &app.description, &state.function_name(function), &key.1]);
        Ok::<_, Error>(function.ports.get(&key.1).copied().into_iter().chain([usual]).collect::<Vec<u16>>())
    })?;
    let bound = async { bind(&wanted).await.and_then(|l| Ok((l.local_addr()?.port(), l))) };
    let (port, listener) = bound.await.map_err(Error::io("listen for", "a web function"))?;
    shared.change(|state, _| state.set_port(&key.0, &key.1, port)).await?;
    let stop = shared.endpoints.add(key.clone());
    let app = Router::new().fallback(answer).with_state(Target { shared: shared.clone(), key });
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let listener = listener.tap_io(|stream| {
        // Without it, responses are only slower.
        let _ = stream.set_nodelay(true);
    });
    shared.endpoints.servers.spawn(async move {
        let served = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, port, "a web function's server failed");
        }
    });
    Ok(())
}

/// Binds the first of these ports that is free, or any.
async fn bind(wanted: &[u16]) -> io::Result<TcpListener> {
    for port in wanted {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).await {
            return Ok(listener);
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// The preferred port of a name.
fn usual_port(name: &[&str]) -> u16 {
    let digest = Sha256::digest(name.join("\0"));
    FIRST_PORT + u16::from_be_bytes([digest[0], digest[1]]) % PORTS
}

async fn answer(
    State(target): State<Target>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
) -> Result<Response, Refusal> {
    target.answer(client, request).await
}

impl Target {
    async fn answer(&self, client: SocketAddr, request: Request) -> Result<Response, Refusal> {
        let (function_id, method) = &self.key;
        let (mut parts, body) = request.into_parts();
        access::check_host(&parts)?;
        let gone = || Refusal::new(StatusCode::NOT_FOUND, "the function is not deployed, or its app is stopped");
        let definition = self.shared.read(|state| state.live_definition(function_id).cloned()).ok_or_else(gone)?;
        if let Some(config) = definition.server() {
            if !config.unauthenticated {
                access::check_token(&self.shared, &parts.headers)?;
            }
            return server::answer(&self.shared, function_id, config, client, Request::from_parts(parts, body)).await;
        }
        let config = definition.web_method(method).ok_or_else(gone)?;
        if config.requires_proxy_auth {
            access::check_token(&self.shared, &parts.headers)?;
        }
        let function_id = params::bind(&self.shared, &definition, &parts.uri).await?;
        let begin = |scope: Vec<u8>| WebCall::begin(&self.shared, &function_id, method, scope);
        match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
            Ok(upgrade) => {
                let subprotocols = websocket::subprotocols(&parts.headers);
                let call = begin(scope::websocket(&parts, client, &subprotocols))?;
                websocket::answer(call, upgrade).await
            }
            Err(_) => http::answer(begin(scope::http(&parts, client))?, body).await,
        }
    }
}

/// The headers of an ASGI message, which alternates names and values. Invalid ones are left out.
fn headers(flat: &[Bytes]) -> HeaderMap {
    let pairs = flat.chunks_exact(2).filter_map(|pair| {
        let name = HeaderName::from_bytes(&pair[0]).ok()?;
        Some((name, HeaderValue::from_maybe_shared(pair[1].clone()).ok()?))
    });
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name, value);
    }
    headers
}
