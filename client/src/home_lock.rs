//! Finds the daemon that holds a home, by its lock, without a request.

use std::{fs::File, io::Read, os::unix::net::UnixStream, path::PathBuf};

use airflow_serverless_api::home::{self, Home};
use rustix::process::{Flock, FlockType, Pid, fcntl_getlk};
use socket_path::SocketPath;

/// The daemon that holds the lock.
pub struct Holder {
    /// `None` if its process is not visible from here: it runs in another container.
    pub pid: Option<Pid>,
    socket: Option<PathBuf>,
}

impl Holder {
    /// Returns the holder of a home, if there is one.
    pub fn of(home: &Home) -> Option<Self> {
        let mut file = File::open(home.lock()).ok()?;
        // The kernel knows the owner of the lock; the file may have been written by an earlier daemon.
        let found = fcntl_getlk(&file, &Flock::from(FlockType::ReadLock)).ok()??;
        let mut text = String::new();
        let told = file.read_to_string(&mut text).ok().and_then(|_| home::Holder::parse(&text));
        let is_its_own = |told: &home::Holder| found.pid.is_none_or(|pid| number(pid) == told.pid);
        Some(Self { pid: found.pid, socket: told.filter(is_its_own).map(|told| told.socket) })
    }
}

/// Returns the home as seen by the daemon that holds it: its runtime folder may differ, as under cron, `su` or `docker
/// exec`.
pub fn resolve_running_home(home: &Home) -> Home {
    let socket = Holder::of(home).and_then(|holder| holder.socket);
    let folder = socket.and_then(|socket| socket.parent().map(ToOwned::to_owned));
    Home { runtime: folder.unwrap_or_else(|| home.runtime.clone()), ..home.clone() }
}

/// Whether a daemon accepts connections; sends no request.
pub fn listens(home: &Home) -> bool {
    SocketPath::new(&resolve_running_home(home).socket()).and_then(|socket| UnixStream::connect(socket.get())).is_ok()
}

/// Returns a process id as a number.
pub fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}
