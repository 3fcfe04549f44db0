//! Talks to a server that runs, over its admin socket.

use std::{io::ErrorKind, path::Path};

use anyhow::{Context, bail};
use modal_emulator::{ADMIN_SOCKET, Fault, Status};
use reqwest::{Client, Response};
use socket_path::SocketPath;

/// A server that runs.
pub struct Admin {
    http: Client,
    data_dir: String,
    /// Leads to the socket while it is held; without a data folder there is none.
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

    /// What runs.
    pub async fn status(&self) -> anyhow::Result<Status> {
        Ok(self.answer(self.http.get(url("status"))).await?.json().await?)
    }

    /// What is to go wrong.
    pub async fn faults(&self) -> anyhow::Result<Vec<Fault>> {
        Ok(self.answer(self.http.get(url("faults"))).await?.json().await?)
    }

    /// Sets what is to go wrong.
    pub async fn set_faults(&self, faults: String) -> anyhow::Result<()> {
        let request = self.http.put(url("faults")).header("content-type", "application/json").body(faults);
        self.answer(request).await.map(|_| ())
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Response> {
        let answer = request.send().await.with_context(|| {
            format!("no server runs on the data folder {:?}; start one with `modal-local serve`", self.data_dir)
        })?;
        if !answer.status().is_success() {
            bail!("the server refused: {}", answer.text().await?);
        }
        Ok(answer)
    }
}

fn url(path: &str) -> String {
    // The host only fills the place: the socket is the address.
    format!("http://localhost/{path}")
}
