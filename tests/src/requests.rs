//! Requests to the daemon's socket, each on a connection of its own, for clients that outlive the daemon.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::Value;

/// Longest time without a byte of the answer.
const SILENCE: Duration = Duration::from_secs(150);

/// What is asked of the daemon.
#[derive(Debug, Default)]
pub struct Request {
    line: String,
    headers: String,
    body: String,
}

impl Request {
    /// A request without a body, by its method and path.
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

    /// Makes it one that can be sent again.
    pub fn with_key(mut self, key: &str) -> Self {
        self.headers += &format!("idempotency-key: {key}\r\n");
        self
    }

    /// Sends it and gives the answer; an error if there is none, or not all of one.
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

/// A whole answer.
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
        // Without a length there is no body: none that is asked for here comes in chunks.
        (body.len() == length.unwrap_or(0)).then(|| Self { status, body: body.to_owned() })
    }

    /// The answer's JSON, if its status is one of these.
    #[track_caller]
    pub fn expect(&self, statuses: &[u16]) -> Value {
        assert!(statuses.contains(&self.status), "not {statuses:?}: {self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
