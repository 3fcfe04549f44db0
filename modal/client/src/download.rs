//! Contents of files and large results: from URLs that the server gives out.

use std::{
    io::Write,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tonic::codegen::{Bytes, http::StatusCode};

/// Longest time for one block of a file, which has a few MiB.
const LONGEST: Duration = Duration::from_secs(300);

/// Why a URL's content could not be had. None of them tells the URL, which is a capability.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error("the server gave out something that is not a URL")]
    Url,
    #[error("the connection failed")]
    Connection(#[source] hyper_util::client::legacy::Error),
    #[error("the answer broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the certificates of this system cannot be read")]
    Certificates(#[source] std::io::Error),
    #[error("what came cannot be written")]
    Write(#[source] std::io::Error),
    #[error("the answer is {0}")]
    Status(StatusCode),
    #[error("it did not come within {} s", LONGEST.as_secs())]
    TimeLimit,
}

/// A client of both kinds of URLs. Clones share its connections.
#[derive(Clone)]
pub(crate) struct Downloads {
    plain: Client<HttpConnector, Empty<Bytes>>,
    /// Made when it is first needed: a server on this machine needs no certificates.
    secure: Arc<OnceLock<Client<HttpsConnector<HttpConnector>, Empty<Bytes>>>>,
}

impl Downloads {
    pub fn new() -> Self {
        Self { plain: Client::builder(TokioExecutor::new()).build_http(), secure: Arc::default() }
    }

    /// The content at a URL, written as it comes.
    pub async fn get(&self, url: &str, to: &mut (impl Write + Send)) -> Result<(), DownloadError> {
        tokio::time::timeout(LONGEST, self.whole(url, to)).await.unwrap_or(Err(DownloadError::TimeLimit))
    }

    async fn whole(&self, url: &str, to: &mut (impl Write + Send)) -> Result<(), DownloadError> {
        let is_secure = url.starts_with("https:");
        let url = url.parse().map_err(|_| DownloadError::Url)?;
        let response = if is_secure { self.secure()?.get(url).await } else { self.plain.get(url).await };
        let response = response.map_err(DownloadError::Connection)?;
        if !response.status().is_success() {
            return Err(DownloadError::Status(response.status()));
        }
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| DownloadError::Body(error.into()))?;
            if let Some(data) = frame.data_ref() {
                to.write_all(data).map_err(DownloadError::Write)?;
            }
        }
        Ok(())
    }

    fn secure(&self) -> Result<&Client<HttpsConnector<HttpConnector>, Empty<Bytes>>, DownloadError> {
        if let Some(client) = self.secure.get() {
            return Ok(client);
        }
        let roots = HttpsConnectorBuilder::new().with_native_roots().map_err(DownloadError::Certificates)?;
        let client = Client::builder(TokioExecutor::new()).build(roots.https_only().enable_http1().build());
        Ok(self.secure.get_or_init(|| client))
    }
}
