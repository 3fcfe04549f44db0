//! A PostgreSQL server for one test. `tests/python/postgres.py` knows where the binaries are and how to start them.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use crate::workspace;

/// A server that runs until this is dropped.
pub struct Postgres {
    process: Child,
    /// The connection string of a fresh database.
    pub url: String,
}

impl Postgres {
    pub fn start() -> Self {
        let python = workspace().join(".venv/bin/python");
        let mut process = Command::new(&python)
            .arg(workspace().join("tests/python/postgres.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} (`make .venv/complete` makes it): {error}", python.display()));
        let mut url = String::new();
        let stdout = process.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut url).expect("a line");
        assert!(url.starts_with("postgresql://"), "PostgreSQL did not start");
        Self { process, url: url.trim().to_owned() }
    }

    /// Returns the password as encoded in the URL.
    pub fn password(&self) -> &str {
        let (credentials, _) = self.url.rsplit_once('@').expect("credentials");
        credentials.rsplit_once(':').expect("a password").1
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // It stops at the end of its input.
        drop(self.process.stdin.take());
        if let Err(error) = self.process.wait() {
            eprintln!("PostgreSQL was not stopped: {error}");
        }
    }
}
