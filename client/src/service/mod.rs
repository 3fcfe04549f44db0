//! Installs the daemon as a service: started with the user's session, and restarted if it fails.

mod launchd;
mod systemd;

use std::{
    ffi::OsString,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use airflow_serverless_api::{home::Home, variables};

use self::{launchd::Launchd, systemd::Systemd};
use crate::error::CliError;

/// Environment variables that the service inherits at installation, as a service manager has its own environment.
/// Variables for package indexes are added.
const INHERITED: [&str; 11] = [
    variables::HOME,
    variables::PYTHON,
    variables::RUNTIMES,
    variables::LOG,
    "PATH",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
    "XDG_RUNTIME_DIR",
];

/// A service manager of this user.
pub enum Service {
    Systemd(Systemd),
    Launchd(Launchd),
}

/// The inputs of a service definition.
pub struct Plan<'a> {
    pub home: &'a Home,
    pub daemon: &'a Path,
    pub variables: Vec<(String, String)>,
}

/// The result of an installation.
pub struct Installed {
    /// The written files.
    pub files: Vec<PathBuf>,
    /// A warning about the installation.
    pub note: Option<&'static str>,
}

impl<'a> Plan<'a> {
    pub fn new(home: &'a Home, daemon: &'a Path) -> Self {
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        let is_inherited = |(name, value): &(String, String)| {
            !value.is_empty() && (INHERITED.contains(&name.as_str()) || variables::is_of_packages(name))
        };
        let mut variables: Vec<_> = std::env::vars_os().filter_map(text).filter(is_inherited).collect();
        variables.sort();
        Self { home, daemon, variables }
    }

    /// Returns the folders that the daemon writes to.
    fn folders(&self) -> Vec<PathBuf> {
        let Home { config, data, state, cache, runtime } = self.home;
        let mut folders: Vec<_> = [config, data, state, cache, runtime].map(PathBuf::clone).to_vec();
        let named = self.variables.iter().filter(|(name, _)| [variables::RUNTIMES, "TMPDIR"].contains(&name.as_str()));
        folders.extend(named.map(|(_, value)| PathBuf::from(value)));
        // systemd accepts no path with `..`.
        folders.into_iter().map(|folder| folder.canonicalize().unwrap_or(folder)).collect()
    }

    /// Creates missing folders: a sandboxed service can write to them, but not create them.
    fn make_folders(&self) -> Result<(), CliError> {
        for folder in self.folders() {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.map_err(|error| CliError::unexpected(&format!("creating {}", folder.display()), error))?;
        }
        Ok(())
    }
}

impl Service {
    /// Returns the service manager of this system, whether the daemon is installed or not.
    fn known() -> Result<Self, CliError> {
        if cfg!(target_os = "macos") { Launchd::new().map(Self::Launchd) } else { Systemd::new().map(Self::Systemd) }
    }

    /// Returns the service manager of this home's daemon, if it is installed.
    pub fn of(home: &Home) -> Option<Self> {
        let service = Self::known().ok()?;
        let is_ours = match &service {
            Self::Systemd(systemd) => systemd.has(home),
            Self::Launchd(launchd) => launchd.has(home),
        };
        is_ours.then_some(service)
    }

    /// Checks that there is a usable service manager.
    pub fn usable() -> Result<(), CliError> {
        match Self::known()? {
            Self::Systemd(_) => systemd::usable(),
            Self::Launchd(_) => Ok(()),
        }
    }

    /// Installs the daemon and starts it.
    pub fn install(plan: &Plan<'_>) -> Result<(Self, Installed), CliError> {
        let service = Self::known()?;
        let installed = match &service {
            Self::Systemd(systemd) => systemd.install(plan),
            Self::Launchd(launchd) => launchd.install(plan),
        }?;
        Ok((service, installed))
    }

    /// Stops the daemon and uninstalls it; returns the removed files.
    pub fn uninstall(&self) -> Result<Vec<PathBuf>, CliError> {
        match self {
            Self::Systemd(systemd) => systemd.uninstall(),
            Self::Launchd(launchd) => launchd.uninstall(),
        }
    }

    pub fn start(&self) -> Result<(), CliError> {
        match self {
            Self::Systemd(systemd) => systemd.start(),
            Self::Launchd(launchd) => launchd.start(),
        }
    }

    pub fn stop(&self) -> Result<(), CliError> {
        match self {
            Self::Systemd(systemd) => systemd.stop(),
            Self::Launchd(launchd) => launchd.stop(),
        }
    }

    /// Returns the command that shows its log, unless that is a file.
    pub fn logs(&self, lines: usize, follow: bool, json: bool) -> Option<Command> {
        match self {
            Self::Systemd(_) => Some(systemd::logs(lines, follow, json)),
            Self::Launchd(_) => None,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Systemd(_) => "systemd",
            Self::Launchd(_) => "launchd",
        }
    }
}

/// Runs a command of the service manager and waits for it.
fn run(program: &str, arguments: &[&str]) -> Result<Output, CliError> {
    let shown = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| CliError::unexpected(&shown(), error))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let message = format!("{} failed ({}): {}", shown(), output.status, said.trim());
    Err(CliError::Unexpected { message, hint: Some("`airflow-serverless daemon logs` may show why".to_owned()) })
}

/// Returns a folder in the user's home.
fn user_folder(below_home: &str) -> Result<PathBuf, CliError> {
    let no_home = || CliError::input("no home directory", Vec::new(), Some("set HOME"));
    std::env::home_dir().map(|home| home.join(below_home)).ok_or_else(no_home)
}

/// Writes a file readable only by its owner: a package index URL may contain a password.
fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let folder = path.parent().unwrap_or(path);
    let replace = || {
        std::fs::create_dir_all(folder)?;
        remove_file(path)?;
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())
    };
    replace().map_err(|error| CliError::unexpected(&format!("writing {}", path.display()), error))
}

/// Removes a file; returns whether it existed.
fn remove(path: &Path) -> Result<bool, CliError> {
    remove_file(path).map_err(|error| CliError::unexpected(&format!("removing {}", path.display()), error))
}

fn remove_file(path: &Path) -> std::io::Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
