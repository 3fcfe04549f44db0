//! The status of the daemon: whether one holds the home, and whether it responds.

use airflow_serverless_api::{daemon::Version, home::Home};

use crate::{
    daemon::Daemon,
    error::CliError,
    home_lock::{Holder, listens, number},
};

/// The status of the daemon of a home.
pub enum DaemonStatus {
    Absent,
    Running(Version),
    /// It holds the lock but accepts no connections: it is shutting down. (Also for a moment during startup.)
    Stopping {
        pid: Option<u32>,
    },
    /// It accepts connections but does not respond.
    Unresponsive {
        pid: Option<u32>,
        why: String,
    },
}

impl DaemonStatus {
    pub async fn of(home: &Home) -> Result<Self, CliError> {
        let mut unanswered = None;
        if listens(home) {
            match Daemon::at(home)?.version().await {
                Ok(version) => return Ok(Self::Running(version)),
                Err(failure) => unanswered = Some(failure.problem().detail),
            }
        }
        let holder = Holder::of(home);
        let is_there = holder.is_some();
        let pid = holder.and_then(|holder| holder.pid).map(number);
        match unanswered {
            // If the socket has closed in the meantime, the daemon is stopping.
            Some(why) if listens(home) => Ok(Self::Unresponsive { pid, why }),
            _ if is_there => Ok(Self::Stopping { pid }),
            _ => Ok(Self::Absent),
        }
    }

    /// Describes a daemon that accepts connections but does not respond.
    pub fn unresponsive(home: &Home, why: String) -> Self {
        let pid = Holder::of(home).and_then(|holder| holder.pid).map(number);
        Self::Unresponsive { pid, why }
    }

    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Absent => None,
            Self::Running(version) => Some(version.pid),
            Self::Stopping { pid } | Self::Unresponsive { pid, .. } => *pid,
        }
    }

    /// Returns a word for scripts.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Running(_) => "serves",
            Self::Stopping { .. } => "stops",
            Self::Unresponsive { .. } => "silent",
        }
    }

    /// Returns a sentence for users.
    pub fn describe(&self) -> String {
        let pid = self.pid().map_or_else(|| "in another container".to_owned(), |pid| format!("pid {pid}"));
        match self {
            Self::Absent => "airflowd is not running".to_owned(),
            Self::Running(version) => format!("airflowd {} is running ({pid})", version.version),
            Self::Stopping { .. } => format!("airflowd ({pid}) is stopping: it finishes work in progress"),
            Self::Unresponsive { why, .. } => format!("airflowd ({pid}) is running but not responding: {why}"),
        }
    }

    /// Returns a hint on what to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Running(_) => None,
            Self::Absent => {
                Some("`airflow-serverless daemon start` starts it, `daemon logs` shows why it ended".to_owned())
            }
            Self::Stopping { .. } => Some("`airflow-serverless daemon stop` waits until it has stopped".to_owned()),
            Self::Unresponsive { pid: Some(pid), .. } => Some(format!(
                "`airflow-serverless daemon restart` replaces it, `daemon logs` shows more; if it is suspended, \
                 `kill -CONT {pid}` resumes it"
            )),
            Self::Unresponsive { .. } => Some("`airflow-serverless daemon logs` shows more".to_owned()),
        }
    }
}
