//! Requests to the daemon's socket, each on its own connection, for clients that outlive the daemon.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::Value;

/// Longest wait for the next byte of a response.
const SILENCE: Duration = Duration::from_secs(150);

/// A request to the daemon.
#[derive(Debug, Default)]
pub struct Request {
    line: String,
    headers: String,
    body: String,
}

impl Request {
    /// Creates a request without a body, from its method and path.
    pub fn new(line: impl Into<String>) -> Self {
        Self { line: line.into(), ..Self::default() }
    }

    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    pub fn body(mut self, media_type: &str, body: String) -> Self {
        self.headers += &format!("content-type: {media_type}\r\n");
        self.body = body;
        self
    }

    /// Adds an idempotency key.
    pub fn with_key(mut self, key: &str) -> Self {
        self.headers += &format!("idempotency-key: {key}\r\n");
        self
    }

    /// Sends it and returns the response; fails if the response is missing or incomplete.
    pub fn send(&self, socket: &Path) -> io::Result<Reply> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(SILENCE))?;
        let Self { line, headers, body } = self;
        let length = body.len();
        let head = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Reply::parse(&answer).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// A complete response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: String,
}

impl Reply {
    fn parse(answer: &[u8]) -> Option<Self> {
        let (head, body) = std::str::from_utf8(answer).ok()?.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let header = |line: &str| line.strip_prefix("content-length: ")?.parse().ok();
        let length: Option<usize> = head.to_ascii_lowercase().lines().find_map(header);
        // Without a length there is no body: no response to these requests is chunked.
        (body.len() == length.unwrap_or(0)).then(|| Self { status, body: body.to_owned() })
    }

    /// Returns the response's JSON; asserts that the status is one of these.
    #[track_caller]
    pub fn expect(&self, statuses: &[u16]) -> Value {
        assert!(statuses.contains(&self.status), "not {statuses:?}: {self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
