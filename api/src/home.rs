//! Where the daemon lives: its folders, sockets and files, as the daemon and its clients both compute them.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::variables;

/// Exit code of an `airflowd` that found another one with the same home (`EX_TEMPFAIL`).
pub const ALREADY_RUNNING: u8 = 75;

/// Exit code of an `airflowd` that cannot start before somebody changes its settings or its home (`EX_CONFIG`).
pub const UNUSABLE: u8 = 78;

/// The daemon's folders, by what they hold. Nothing here is created or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// What the user sets: `airflowd.yaml`.
    pub config: PathBuf,
    /// What cannot be made again: the registry, Local Modal's Volumes and metadata.
    pub data: PathBuf,
    /// Logs.
    pub state: PathBuf,
    /// What can be made again: downloads, snapshots of metadata.
    pub cache: PathBuf,
    /// Sockets of the running daemon. (cron, `su` and containers may see another folder than the user's session.)
    pub runtime: PathBuf,
}

/// Neither `AIRFLOW_SERVERLESS_HOME` nor a home directory of the user is known.
#[derive(Debug, thiserror::Error)]
#[error("no home directory: set HOME, or {} to the folder that the daemon shall use", variables::HOME)]
pub struct NoHome;

/// What the lock's file says of the daemon that has the lock: its process, and where its socket is, each on a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    pub socket: PathBuf,
}

impl Holder {
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (pid, socket) = (lines.next()?.parse().ok()?, Path::new(lines.next()?));
        socket.is_absolute().then(|| Self { pid, socket: socket.to_owned() })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}", self.pid, self.socket.display())
    }
}

impl Home {
    /// The folders of this user, or all below `AIRFLOW_SERVERLESS_HOME` if that is set.
    ///
    /// # Errors
    /// If the variable is not set and this user has no home folder.
    pub fn from_environment() -> Result<Self, NoHome> {
        if let Some(root) = std::env::var_os(variables::HOME).filter(|value| !value.is_empty()) {
            return Ok(Self::below(PathBuf::from(root)));
        }
        let dirs = directories::ProjectDirs::from("", "", "airflow-serverless").ok_or(NoHome)?;
        let data = dirs.data_local_dir().to_owned();
        let state = dirs.state_dir().map_or_else(|| data.join("state"), ToOwned::to_owned);
        let runtime = dirs.runtime_dir().map_or_else(|| state.join("run"), ToOwned::to_owned);
        Ok(Self { config: dirs.config_dir().to_owned(), data, state, cache: dirs.cache_dir().to_owned(), runtime })
    }

    /// All folders below one.
    pub fn below(root: PathBuf) -> Self {
        Self {
            config: root.join("config"),
            data: root.join("data"),
            state: root.join("state"),
            cache: root.join("cache"),
            runtime: root.join("run"),
        }
    }

    /// The Unix socket on which the daemon serves its API.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("airflowd.sock")
    }

    /// The file that a running daemon has locked (by `fcntl`), and that says which one it is. It lies beside the
    /// registry,
    /// so that this has one daemon, whatever folder for sockets that sees.
    pub fn lock(&self) -> PathBuf {
        self.data.join("airflowd.pid")
    }

    /// Where a running daemon tells the addresses of its ports, one a line; absent if it has none.
    pub fn addresses(&self) -> PathBuf {
        self.runtime.join("airflowd.addr")
    }

    /// The token that requests to a port need.
    pub fn token(&self) -> PathBuf {
        self.data.join("token")
    }

    /// Where a daemon that the CLI started writes its log.
    pub fn log(&self) -> PathBuf {
        self.state.join("airflowd.log")
    }

    /// What such a daemon printed beside its log: why it could not start, for one.
    pub fn output(&self) -> PathBuf {
        self.state.join("airflowd.out")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_holder_round_trips_through_text() {
        let holder = Holder { pid: 7, socket: "/run/user/1000/a b/airflowd.sock".into() };
        assert_eq!(Holder::parse(&holder.to_string()), Some(holder));
        for text in ["", "7\n", "7\nrelative\n", "x\n/socket\n"] {
            assert_eq!(Holder::parse(text), None, "{text:?}");
        }
    }
}
