//! Whether a daemon has this home, by the lock that it holds, and whether it answers.

use std::{fs::File, io::Read, os::unix::net::UnixStream, path::PathBuf};

use airflow_serverless_api::{
    daemon::Version,
    home::{self, Home},
};
use rustix::process::{Flock, FlockType, Pid, fcntl_getlk};
use socket_path::SocketPath;

use crate::{daemon::Daemon, failure::Failure};

/// The daemon that has the lock.
pub struct Holder {
    /// None if its process cannot be seen from here: it runs in another container.
    pub pid: Option<Pid>,
    socket: Option<PathBuf>,
}

impl Holder {
    pub fn of(home: &Home) -> Option<Self> {
        let mut file = File::open(home.lock()).ok()?;
        // The kernel knows whose the lock is; what the file says may be of an earlier daemon.
        let found = fcntl_getlk(&file, &Flock::from(FlockType::ReadLock)).ok()??;
        let mut text = String::new();
        let told = file.read_to_string(&mut text).ok().and_then(|_| home::Holder::parse(&text));
        let is_its_own = |told: &home::Holder| found.pid.is_none_or(|pid| number(pid) == told.pid);
        Some(Self { pid: found.pid, socket: told.filter(is_its_own).map(|told| told.socket) })
    }
}

/// The home as the daemon sees it that has it: its folder for sockets can be another one, as under cron, `su` or
/// `docker exec`.
pub fn as_held(home: &Home) -> Home {
    let socket = Holder::of(home).and_then(|holder| holder.socket);
    let folder = socket.and_then(|socket| socket.parent().map(ToOwned::to_owned));
    Home { runtime: folder.unwrap_or_else(|| home.runtime.clone()), ..home.clone() }
}

/// Whether somebody takes connections; known without asking anything.
pub fn listens(home: &Home) -> bool {
    SocketPath::new(&as_held(home).socket()).and_then(|socket| UnixStream::connect(socket.get())).is_ok()
}

/// How it is with the daemon of a home.
pub enum Presence {
    Absent,
    Serves(Version),
    /// It has the lock and takes no connections: it ends what it has begun. (Just started, it does so for a moment.)
    Stops {
        pid: Option<u32>,
    },
    /// It takes connections, but does not answer.
    Silent {
        pid: Option<u32>,
        why: String,
    },
}

impl Presence {
    pub async fn of(home: &Home) -> Result<Self, Failure> {
        let mut unanswered = None;
        if listens(home) {
            match Daemon::at(home)?.version().await {
                Ok(version) => return Ok(Self::Serves(version)),
                Err(failure) => unanswered = Some(failure.problem().detail),
            }
        }
        let holder = Holder::of(home);
        let is_there = holder.is_some();
        let pid = holder.and_then(|holder| holder.pid).map(number);
        match unanswered {
            // One that closed its socket meanwhile is not silent.
            Some(why) if listens(home) => Ok(Self::Silent { pid, why }),
            _ if is_there => Ok(Self::Stops { pid }),
            _ => Ok(Self::Absent),
        }
    }

    /// A daemon that takes connections, but does not answer.
    pub fn silent(home: &Home, why: String) -> Self {
        let pid = Holder::of(home).and_then(|holder| holder.pid).map(number);
        Self::Silent { pid, why }
    }

    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Absent => None,
            Self::Serves(version) => Some(version.pid),
            Self::Stops { pid } | Self::Silent { pid, .. } => *pid,
        }
    }

    /// In a word, for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Serves(_) => "serves",
            Self::Stops { .. } => "stops",
            Self::Silent { .. } => "silent",
        }
    }

    /// In a sentence, for people.
    pub fn describe(&self) -> String {
        let pid = self.pid().map_or_else(|| "in another container".to_owned(), |pid| format!("pid {pid}"));
        match self {
            Self::Absent => "airflowd is not running".to_owned(),
            Self::Serves(version) => format!("airflowd {} is running ({pid})", version.version),
            Self::Stops { .. } => format!("airflowd ({pid}) is stopping: it finishes work in progress"),
            Self::Silent { why, .. } => format!("airflowd ({pid}) is running but not responding: {why}"),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Serves(_) => None,
            Self::Absent => {
                Some("`airflow-serverless daemon start` starts it, `daemon logs` shows why it ended".to_owned())
            }
            Self::Stops { .. } => Some("`airflow-serverless daemon stop` waits until it has stopped".to_owned()),
            Self::Silent { pid: Some(pid), .. } => Some(format!(
                "`airflow-serverless daemon restart` replaces it, `daemon logs` shows more; if it is suspended, \
                 `kill -CONT {pid}` resumes it"
            )),
            Self::Silent { .. } => Some("`airflow-serverless daemon logs` shows more".to_owned()),
        }
    }
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}
