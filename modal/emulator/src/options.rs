//! The options of an emulator, and the errors of its start.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::store::StoreError;

/// Where the SDK connects.
#[derive(Debug, Clone)]
pub enum Listen {
    /// A Unix socket with mode 0600. An existing file at the path is replaced.
    Unix(PathBuf),
    /// A loopback address; port 0 picks a free one.
    Tcp(SocketAddr),
}

impl Listen {
    /// A Unix socket, or a free loopback port if the path is too long for the SDK to connect to.
    pub fn by_default(path: PathBuf) -> Self {
        let fits = std::path::absolute(&path).is_ok_and(|path| socket_path::fits(&path));
        if fits { Self::Unix(path) } else { Self::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))) }
    }
}

/// What containers see of Volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VolumeMode {
    /// The Volume's own folder: quick, and a missing commit or reload goes unnoticed.
    #[default]
    Bind,
    /// A copy of their own, as on Modal: others see only what is committed, after a reload.
    Strict,
}

/// What happens to steps of images' recipes that are not installations of Python packages, such as `apt_install`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImageSteps {
    /// Images with such steps are refused.
    #[default]
    Refuse,
    /// Such steps are skipped, and named in a warning when an app is deployed.
    Skip,
    /// Commands run on this machine, as the user of this process.
    Run,
}

/// The settings of one emulator.
#[derive(Debug, Clone)]
pub struct Options {
    /// Everything that outlives the process; created with mode 0700. Only one emulator at a time can use it.
    pub data_dir: PathBuf,
    /// Where the SDK connects.
    pub listen: Listen,
    /// The interpreter that runs containers. It needs the `modal` package, and must exist when the first app is
    /// deployed. A bare name is searched for in the `PATH` of this process when the emulator starts.
    pub python: PathBuf,
    /// What containers see of Volumes.
    pub volumes: VolumeMode,
    /// The most containers of a function that sets no `max_containers`.
    pub default_max_containers: u32,
    /// Whether functions that ask for a GPU run without one; otherwise they are refused.
    pub ignore_gpu: bool,
    /// What happens to steps of images' recipes that are not installations of Python packages.
    pub image_steps: ImageSteps,
    /// How long a container may take to stop before it is killed.
    pub stop_grace: Duration,
}

impl Options {
    /// Settings for `data_dir` with defaults for the rest: a Unix socket in it ([`Listen::by_default`]), and `python3`
    /// from the search path.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            listen: Listen::by_default(data_dir.join("modal.sock")),
            python: PathBuf::from("python3"),
            volumes: VolumeMode::default(),
            default_max_containers: default_max_containers(),
            ignore_gpu: false,
            image_steps: ImageSteps::default(),
            stop_grace: Duration::from_secs(5),
            data_dir,
        }
    }
}

impl Options {
    /// The folder with the environments of images, one folder each.
    pub(crate) fn images_folder(&self) -> PathBuf {
        self.data_dir.join("images")
    }

    /// The folder with what functions that are steps of images wrote, one folder each.
    pub(crate) fn homes_folder(&self) -> PathBuf {
        self.data_dir.join("homes")
    }

    /// The folder with the private folders of all containers.
    pub(crate) fn containers_folder(&self) -> PathBuf {
        self.data_dir.join("containers")
    }

    /// The private folder of a container. It is removed when the container ends.
    pub(crate) fn container_folder(&self, task_id: &str) -> PathBuf {
        self.containers_folder().join(task_id)
    }
}

/// The interpreter as an absolute path. Links are not resolved: a link is what makes a virtual environment.
pub(crate) fn absolute_python(python: &Path) -> io::Result<PathBuf> {
    if python.components().count() == 1 && !python.is_absolute() {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        if let Some(found) =
            std::env::split_paths(&folders).map(|folder| folder.join(python)).find(|path| path.is_file())
        {
            return std::path::absolute(found);
        }
    }
    std::path::absolute(python)
}

/// More than there are processors: containers mostly wait, but each one that starts is busy for a second.
fn default_max_containers() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(processors * 4).unwrap_or(u32::MAX).clamp(8, 64)
}

/// Why an emulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "{0} is not a loopback address; Local Modal runs any code that it receives, so it listens on this machine only"
    )]
    NotLoopback(SocketAddr),
    #[error(
        "the socket path {path:?} has {length} bytes, and at most {} fit; choose a shorter one",
        socket_path::LONGEST
    )]
    SocketPathTooLong { path: PathBuf, length: usize },
    #[error("another server uses the data folder {0:?}")]
    InUse(PathBuf),
    #[error("could not {action} {path:?}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("could not listen on {address}")]
    Bind {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("could not read the state of the last run")]
    Store(#[from] StoreError),
}

impl StartError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
