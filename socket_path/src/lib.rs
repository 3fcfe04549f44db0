//! Unix sockets at paths of any length. The address of a socket has room for 107 bytes (`sun_path` of Linux's
//! `unix(7)`); a longer path is reached through an open descriptor of its folder.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// The longest path that fits into the address of a Unix socket, in bytes.
pub const LONGEST: usize = 107;

/// Whether a path fits into an address, so that any program can connect to it.
pub fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= LONGEST
}

/// A path of a socket that fits into an address. Valid in this process while this value lives.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    _folder: Option<OwnedFd>,
}

impl SocketPath {
    /// # Errors
    /// Those of the system, for example if the folder of a long path does not exist. `InvalidInput` if the path is too
    /// long and the system offers no shorter alias.
    pub fn new(path: &Path) -> io::Result<Self> {
        if fits(path) {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        Self::through_folder(path)
    }

    #[cfg(target_os = "linux")]
    fn through_folder(path: &Path) -> io::Result<Self> {
        use std::os::fd::AsRawFd;

        use rustix::fs::{Mode, OFlags};

        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Err(too_long(path)) };
        let folder = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        if fits(&short) { Ok(Self { path: short, _folder: Some(folder) }) } else { Err(too_long(path)) }
    }

    #[cfg(not(target_os = "linux"))]
    fn through_folder(path: &Path) -> io::Result<Self> {
        Err(too_long(path))
    }

    pub fn get(&self) -> &Path {
        &self.path
    }
}

fn too_long(path: &Path) -> io::Error {
    let length = path.as_os_str().len();
    io::Error::new(io::ErrorKind::InvalidInput, format!("the path has {length} bytes, a socket's at most {LONGEST}"))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::{UnixListener, UnixStream},
    };

    use super::*;

    #[test]
    fn sockets_work_at_paths_of_any_length() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("f".repeat(200)).join("g".repeat(200));
        let path = folder.join("a.sock");
        assert_eq!(SocketPath::new(&path).map(drop).expect_err("absent").kind(), io::ErrorKind::NotFound);
        std::fs::create_dir_all(&folder).expect("folders");
        let listener = UnixListener::bind(SocketPath::new(&path).expect("a way").get()).expect("a socket");
        assert!(path.exists());
        let mut client = UnixStream::connect(SocketPath::new(&path).expect("a way").get()).expect("a connection");
        client.write_all(b"x").expect("written");
        drop(client);
        let mut text = String::new();
        listener.accept().expect("a client").0.read_to_string(&mut text).expect("read");
        assert_eq!(text, "x");

        let short = Path::new("/short.sock");
        assert_eq!(SocketPath::new(short).expect("a way").get(), short);
        let name = folder.join("n".repeat(110));
        assert_eq!(SocketPath::new(&name).map(drop).expect_err("a name").kind(), io::ErrorKind::InvalidInput);
    }
}
