//! A client of the admin socket.

use std::{io::ErrorKind, path::Path};

use anyhow::{Context, bail};
use modal_emulator::{ADMIN_SOCKET, Fault, Status};
use reqwest::{Client, Response};
use socket_path::SocketPath;

/// A running server.
pub struct Admin {
    http: Client,
    data_dir: String,
    /// A short path to the socket, valid until it is dropped. There is none without a data folder.
    _socket: Option<SocketPath>,
}

impl Admin {
    /// The server of a data folder.
    pub fn of(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join(ADMIN_SOCKET);
        let socket = match SocketPath::new(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).context("finding the admin socket"),
            found => found.ok(),
        };
        let http = Client::builder().unix_socket(socket.as_ref().map_or(path.as_path(), SocketPath::get)).build()?;
        Ok(Self { http, data_dir: data_dir.display().to_string(), _socket: socket })
    }

    /// Fetches the status.
    pub async fn status(&self) -> anyhow::Result<Status> {
        Ok(self.send(self.http.get(url("status"))).await?.json().await?)
    }

    /// Fetches the pending faults.
    pub async fn faults(&self) -> anyhow::Result<Vec<Fault>> {
        Ok(self.send(self.http.get(url("faults"))).await?.json().await?)
    }

    /// Replaces the pending faults.
    pub async fn set_faults(&self, faults: String) -> anyhow::Result<()> {
        let request = self.http.put(url("faults")).header("content-type", "application/json").body(faults);
        self.send(request).await.map(|_| ())
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.with_context(|| {
            format!("no server runs on the data folder {:?}; start one with `modal-local serve`", self.data_dir)
        })?;
        if !response.status().is_success() {
            bail!("the server refused: {}", response.text().await?);
        }
        Ok(response)
    }
}

fn url(path: &str) -> String {
    // The host is a placeholder: the socket is the address.
    format!("http://localhost/{path}")
}
