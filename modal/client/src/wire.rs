//! The connection: server URLs, the headers that Modal requires, and which failures are retried.

use std::{io::Write, path::PathBuf, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use modal_proto::modal_client_client::ModalClientClient;
use tokio::net::UnixStream;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, ClientTlsConfig, Endpoint, Uri},
};

use crate::{
    download::Downloads,
    error::{Error, Result},
};

pub(crate) type Stub = ModalClientClient<InterceptedService<Channel, Headers>>;

/// Attempts of one RPC, the first included.
pub(crate) const ATTEMPTS: u32 = 3;
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// Modal's objects may be 100 MiB; a message carries a little more than its object.
const MAX_MESSAGE: usize = 110 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a server has to show that it is still there, and how quickly: a network that is gone ends what waits for it.
/// (As the SDK has it, so that no server takes it for abuse.)
const PING_PERIOD: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Who calls.
#[derive(Clone)]
pub struct Token {
    pub id: String,
    pub secret: String,
}

/// A connection to one Modal server. Clones share it.
#[derive(Clone)]
pub struct Client {
    /// The same for all clones.
    connection: Arc<()>,
    stub: Stub,
    downloads: Downloads,
    /// The Modal environment in which names are looked up; the workspace's default if empty.
    environment: Arc<str>,
}

impl Client {
    /// Connects to `https://host`, `http://host:port` (h2c) or `unix:///path`. A broken connection is restored
    /// automatically.
    ///
    /// # Errors
    /// [`Error::Url`] if `server_url` is none of these forms, [`Error::Token`] if the token is not printable ASCII,
    /// [`Error::Connect`] if the server cannot be reached.
    pub async fn connect(server_url: &str, token: &Token) -> Result<Self> {
        // Only the first one of a process takes effect, and all are the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let header = |text: &str| MetadataValue::try_from(text).map_err(|_| Error::Token);
        let headers = Headers { token_id: header(&token.id)?, token_secret: header(&token.secret)? };
        let channel = match server_url.split_once(':') {
            Some(("unix", path)) => unix_channel(server_url, path.trim_start_matches("//").into()).await?,
            Some(("http" | "https", _)) => {
                let invalid = |_| Error::Url { url: server_url.to_owned() };
                let mut endpoint = Endpoint::from_shared(server_url.to_owned()).map_err(invalid)?;
                if server_url.starts_with("https:") {
                    let roots = ClientTlsConfig::new().with_enabled_roots();
                    endpoint = endpoint.tls_config(roots).map_err(|source| connect(server_url, source))?;
                }
                endpoint
                    .connect_timeout(CONNECT_TIMEOUT)
                    .tcp_keepalive(Some(PING_PERIOD))
                    .http2_keep_alive_interval(PING_PERIOD)
                    .keep_alive_timeout(PING_TIMEOUT)
                    .keep_alive_while_idle(true)
                    .connect()
                    .await
                    .map_err(|source| connect(server_url, source))?
            }
            _ => return Err(Error::Url { url: server_url.to_owned() }),
        };
        let stub = ModalClientClient::with_interceptor(channel, headers)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Ok(Self { connection: Arc::default(), stub, downloads: Downloads::new(), environment: "".into() })
    }

    /// The same connection, with names looked up in another Modal environment.
    pub fn in_environment(&self, name: &str) -> Self {
        Self { environment: name.into(), ..self.clone() }
    }

    /// Whether both have the same connection, and so the same server and token.
    pub fn shares_connection_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.connection, &other.connection)
    }

    pub(crate) fn environment_name(&self) -> String {
        self.environment.to_string()
    }

    /// The name of the workspace that the token belongs to.
    ///
    /// # Errors
    /// [`Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn workspace(&self) -> Result<String> {
        Ok(rpc!(self, workspace_name_lookup, ())?.workspace_name)
    }

    /// The names of the workspace's Modal environments.
    ///
    /// # Errors
    /// [`Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn environments(&self) -> Result<Vec<String>> {
        Ok(rpc!(self, environment_list, ())?.items.into_iter().map(|item| item.name).collect())
    }

    /// Checks that the server is reachable and accepts this client.
    ///
    /// # Errors
    /// [`Error::Rpc`] if the server cannot be reached or refuses the token.
    pub async fn hello(&self) -> Result<()> {
        rpc!(self, client_hello, ()).map(|_| ())
    }

    /// The time of the server's clock, from the `date` header of its response; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Rpc`] if the server cannot be reached or refuses the token. This call is not repeated.
    pub async fn date(&self) -> Result<Option<String>> {
        let answer = self.stub().client_hello(attempt((), &idempotency_key(), 0)).await;
        let answer = answer.map_err(|status| Error::rpc("client_hello", status))?;
        Ok(answer.metadata().get("date").and_then(|date| date.to_str().ok()).map(ToOwned::to_owned))
    }

    pub(crate) fn stub(&self) -> Stub {
        self.stub.clone()
    }

    /// The contents at a URL that the server gave out for `what`.
    pub(crate) async fn download(&self, what: &str, url: &str, to: &mut (impl Write + Send)) -> Result<()> {
        let failed = |source| Error::Download { path: what.to_owned(), source };
        self.downloads.get(url, to).await.map_err(failed)
    }
}

async fn unix_channel(server_url: &str, path: PathBuf) -> Result<Channel> {
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The URI only fills the :authority header; the connector decides where the bytes go.
    Endpoint::from_static("http://modal.local")
        .connect_timeout(CONNECT_TIMEOUT)
        .connect_with_connector(connector)
        .await
        .map_err(|source| connect(server_url, source))
}

fn connect(url: &str, source: tonic::transport::Error) -> Error {
    Error::Connect { url: url.to_owned(), source }
}

/// Presents this client as a released SDK: Modal refuses clients whose version it does not know.
#[derive(Clone)]
pub(crate) struct Headers {
    token_id: MetadataValue<Ascii>,
    token_secret: MetadataValue<Ascii>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        let headers = request.metadata_mut();
        headers.insert("x-modal-client-version", MetadataValue::from_static(modal_proto::SDK_VERSION));
        headers.insert("x-modal-client-type", MetadataValue::from_static("1"));
        headers.insert("x-modal-python-version", MetadataValue::from_static("3.11.0"));
        headers.insert("x-modal-token-id", self.token_id.clone());
        headers.insert("x-modal-token-secret", self.token_secret.clone());
        Ok(request)
    }
}

/// Wraps a message for one attempt. All attempts of a call carry the same idempotency key, so that a server that did
/// the work but whose answer was lost does not do it twice.
pub(crate) fn attempt<T>(message: T, key: &MetadataValue<Ascii>, number: u32) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-idempotency-key", key.clone());
    request.metadata_mut().insert("x-retry-attempt", MetadataValue::from(number));
    request
}

pub(crate) fn idempotency_key() -> MetadataValue<Ascii> {
    MetadataValue::try_from(uuid::Uuid::new_v4().to_string()).unwrap_or_else(|_| MetadataValue::from_static("0"))
}

/// The pause before the next attempt, or `None` if another one is of no use.
pub(crate) fn retry_delay(status: &Status, number: u32) -> Option<Duration> {
    let passing = matches!(
        status.code(),
        Code::DeadlineExceeded | Code::Unavailable | Code::Cancelled | Code::Internal | Code::Unknown
    );
    (passing && number + 1 < ATTEMPTS).then(|| FIRST_DELAY * 2u32.pow(number))
}

/// Calls one unary RPC, with the retries above, and gives its answer: `rpc!(client, dict_get, request)`.
macro_rules! rpc {
    ($client:expr, $method:ident, $request:expr) => {{
        let request = $request;
        let key = $crate::wire::idempotency_key();
        let mut stub = $client.stub();
        let mut number = 0;
        loop {
            match stub.$method($crate::wire::attempt(request.clone(), &key, number)).await {
                Ok(response) => break Ok(response.into_inner()),
                Err(status) => match $crate::wire::retry_delay(&status, number) {
                    Some(delay) => tokio::time::sleep(delay).await,
                    None => break Err($crate::error::Error::rpc(stringify!($method), status)),
                },
            }
            number += 1;
        }
    }};
}
pub(crate) use rpc;
