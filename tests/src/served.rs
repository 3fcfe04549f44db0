//! A daemon that a test starts directly, and its raw responses.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{Installation, eventually};

/// A daemon started by the test, and stopped with it.
pub struct Served<'a> {
    pub it: &'a Installation,
    pub child: Child,
    /// The address of its port, if it has one.
    pub address: String,
}

impl<'a> Served<'a> {
    /// Starts the daemon on a port of its own and waits until it serves.
    pub fn with_port(it: &'a Installation) -> Self {
        Self::start(it, command(it).args(["--listen", "127.0.0.1:0"]))
    }

    /// Starts the daemon with this command and waits until it serves.
    pub fn start(it: &'a Installation, command: &mut Command) -> Self {
        let folder = it.home().join("state");
        fs::create_dir_all(&folder).expect("a folder");
        let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("airflowd.log")).expect("a log");
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("airflowd starts");
        let mut served = Self { it, child, address: String::new() };
        let status = eventually("the daemon", || {
            let status = it.cli(&["daemon", "status", "--json"]).json();
            (status["state"] == "serves").then_some(status)
        });
        if let Some(url) = status["addresses"][0].as_str() {
            served.address = url.strip_prefix("http://").expect("a URL").to_owned();
        }
        served
    }

    /// Sends a raw request to the port.
    pub fn send(&self, request: &str) -> Answer {
        let stream = TcpStream::connect(&self.address).expect("a connection");
        exchange(stream, request)
    }

    /// Sends a `GET` request with these headers and a valid Host.
    pub fn get(&self, path: &str, headers: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{headers}Connection: close\r\n\r\n", self.address))
    }

    /// Returns the token printed by the CLI.
    pub fn token(&self) -> String {
        self.it.cli(&["daemon", "token"]).succeeded().stdout.trim().to_owned()
    }

    /// Sends a request with the token to the port.
    pub fn with_token(&self, token: &str) -> Answer {
        self.get("/v1/version", &format!("Authorization: Bearer {token}\r\n"))
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // It may have ended already.
            kill_process(pid, Signal::TERM).ok();
        }
        self.child.wait().ok();
    }
}

/// Returns a command for `airflowd` in the environment of the installation.
pub fn command(it: &Installation) -> Command {
    let mut command = Command::new(it.program("airflowd"));
    command.envs(it.variables());
    command
}

/// Starts a daemon that must refuse to start; returns its message. Ends one that serves instead.
#[track_caller]
pub fn start_refused(command: Command) -> String {
    let limit = Duration::from_secs(60);
    let done = assert_cmd::Command::from_std(command).timeout(limit).output().expect("airflowd runs");
    let message = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code().is_some_and(|code| code != 0), "it was not refused: {message}");
    message
}

/// A raw response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    /// Asserts that the response is a problem of this type, without CORS headers.
    #[track_caller]
    pub fn is_refused(&self, status: u16, kind: &str) {
        assert_eq!(self.status, status, "{self:#?}");
        assert!(self.head.contains("content-type: application/problem+json"), "{self:#?}");
        let problem: Value = serde_json::from_str(&self.body).expect("JSON");
        assert_eq!(problem["type"], format!("urn:airflow-serverless:problem:{kind}"), "{self:#?}");
        assert!(self.head.contains("x-request-id: "), "{self:#?}");
        assert!(!self.head.contains("access-control"), "CORS: {self:#?}");
    }

    /// Asserts that the request succeeded, without CORS headers.
    #[track_caller]
    pub fn is_answered(&self) {
        assert_eq!(self.status, 200, "{self:#?}");
        assert!(!self.head.contains("access-control"), "CORS: {self:#?}");
    }
}

/// Writes a request and reads until the connection closes.
pub fn exchange(mut stream: impl Read + Write, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).expect("a written request");
    let mut answer = String::new();
    // A server that refuses a body may close the connection before it has read all of it.
    stream.read_to_string(&mut answer).ok();
    Answer::parse(&answer)
}

/// Sends a raw request to the Unix socket.
pub fn over_socket(it: &Installation, request: &str) -> Answer {
    exchange(UnixStream::connect(it.socket()).expect("a connection"), request)
}

/// Returns the head of a request whose body has this length.
pub fn head(served: &Served, line: &str, length: usize) -> String {
    format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n",
        served.token()
    )
}
