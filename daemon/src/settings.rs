//! The daemon's own settings: `airflowd.yaml` in its configuration folder. The file is optional.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::{loopback::LoopbackAddress, regular_file};

/// Size limit of the file.
const MAX_BYTES: u64 = 1 << 20;

/// Settings of the daemon.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A loopback address on which the API is also served, with token authentication; `airflowd --listen` takes
    /// precedence.
    pub listen: Option<LoopbackAddress>,
    pub local_modal: LocalModal,
    pub log: Log,
    pub registry: Registry,
    pub validator: Validator,
    pub watch: Watch,
}

/// Settings of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// Period of removing expired records.
    pub cleanup_seconds: u32,
}

impl Default for Registry {
    fn default() -> Self {
        Self { cleanup_seconds: 3600 }
    }
}

impl Registry {
    pub fn cleanup_interval(&self) -> Duration {
        Duration::from_secs(self.cleanup_seconds.max(1).into())
    }
}

/// Settings of the validator of DAG files.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Validator {
    /// How long it stays in memory without requests.
    pub idle_seconds: u32,
}

impl Default for Validator {
    fn default() -> Self {
        Self { idle_seconds: 600 }
    }
}

/// Settings of the watches of folders.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Watch {
    /// Poll folders every few seconds instead of using file events: for network file systems, whose changes cause none.
    pub polling: bool,
    pub polling_seconds: u32,
}

impl Default for Watch {
    fn default() -> Self {
        Self { polling: false, polling_seconds: 2 }
    }
}

impl Watch {
    pub fn polling_interval(&self) -> Duration {
        Duration::from_secs(self.polling_seconds.max(1).into())
    }
}

/// Settings of the log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    /// The log filter, in the syntax of `tracing`. Changes take effect with SIGHUP.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::default(), // What it says of single folders is of no use to anybody.
            filter: "info,notify=error".to_owned(),
        }
    }
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    /// A JSON object.
    Json,
}

/// Settings of the Local Modal inside the daemon; `modal-local serve` has options of the same names.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalModal {
    /// A loopback address to listen on, instead of a Unix socket.
    pub listen: Option<SocketAddr>,
    /// Path of the socket; in the daemon's runtime folder if unset.
    pub unix: Option<PathBuf>,
    /// Folder for apps, Dicts and Volumes; in the daemon's data folder if unset.
    pub data_dir: Option<PathBuf>,
    pub volumes: Volumes,
    pub ignore_gpu: bool,
    /// How to handle image steps that do not install Python packages.
    pub images: Images,
    pub unsafe_run_commands: bool,
}

/// How to handle image steps that Local Modal does not carry out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Images {
    /// Images with such steps are refused.
    #[default]
    Refuse,
    /// Such steps are skipped.
    Skip,
}

/// How containers access Volumes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Volumes {
    /// They share the Volume's own folder.
    #[default]
    Bind,
    /// Each has its own copy, as on Modal.
    Strict,
}

/// Returns the first line of a message: the following ones quote the file.
fn one_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("could not read {0:?}")]
    Read(PathBuf, #[source] io::Error),
    #[error("{path:?} is not valid; correct it, or remove it to have the defaults: {reason}")]
    Invalid { path: PathBuf, reason: String },
}

impl Settings {
    /// Reads the settings of a configuration folder.
    pub fn read(folder: &Path) -> Result<Self, SettingsError> {
        let path = folder.join("airflowd.yaml");
        let text = match regular_file::read_text(&path, MAX_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(SettingsError::Read(path, error)),
        };
        let invalid = |reason: String| SettingsError::Invalid { path: path.clone(), reason: one_line(&reason) };
        // A file with nothing but comments has no settings.
        let settings: Option<Self> = serde_saphyr::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        let settings = settings.unwrap_or_default();
        if settings.local_modal.listen.is_some() && settings.local_modal.unix.is_some() {
            return Err(invalid("local_modal has both `listen` and `unix`; choose one".to_owned()));
        }
        if settings.local_modal.images == Images::Skip && settings.local_modal.unsafe_run_commands {
            return Err(invalid(
                "local_modal has both `images: skip` and `unsafe_run_commands`; choose one".to_owned(),
            ));
        }
        Ok(settings)
    }

    /// Returns the settings that differ in `changed` and need a restart.
    pub fn waiting_for_a_restart(&self, changed: &Self) -> Vec<&'static str> {
        let differ = [
            ("listen", self.listen != changed.listen),
            ("local_modal", self.local_modal != changed.local_modal),
            ("log.format", self.log.format != changed.log.format),
            ("registry", self.registry != changed.registry),
            ("validator", self.validator != changed.validator),
            ("watch", self.watch != changed.watch),
        ];
        differ.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, SettingsError> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("airflowd.yaml"), text).expect("a written file");
        Settings::read(folder.path())
    }

    #[test]
    fn missing_settings_have_defaults() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(Settings::read(folder.path()).expect("settings"), Settings::default());
        assert_eq!(read("# nothing\n").expect("settings"), Settings::default());
        let skipping = read("local_modal:\n  images: skip\n").expect("settings");
        assert_eq!(skipping.local_modal.images, Images::Skip);
        let strict = read("local_modal:\n  volumes: strict\n").expect("settings");
        assert_eq!(strict.local_modal.volumes, Volumes::Strict);
        assert!(!strict.local_modal.ignore_gpu);
        assert!(read("listen: localhost:0\n").expect("settings").listen.is_some());
    }

    #[test]
    fn documented_settings_are_the_defaults() {
        let page = include_str!("../../docs/src/reference/airflowd.md");
        let (_, block) = page.split_once("```yaml\n").expect("a block");
        let (settings, _) = block.split_once("```").expect("its end");
        assert_eq!(read(settings).expect("settings"), Settings::default());
    }

    #[test]
    fn changes_that_need_a_restart_are_named() {
        let (old, new) = (Settings::default(), read("log:\n  filter: debug\n").expect("settings"));
        assert_eq!(old.waiting_for_a_restart(&new), Vec::<&str>::new());
        let new = read("log:\n  format: json\nlocal_modal:\n  volumes: strict\n").expect("settings");
        assert_eq!(old.waiting_for_a_restart(&new), ["local_modal", "log.format"]);
    }

    #[test]
    fn invalid_settings_are_refused_with_the_reason() {
        for (text, named) in [
            ("local_modal:\n  volume: strict\n", "volume"),
            ("local_modal:\n  volumes: loose\n", "loose"),
            ("local_modal: [\n", "airflowd.yaml"),
            ("listen: 0.0.0.0:8793\n", "other machines"),
            ("listen: 8793\n", "127.0.0.1:8793"),
            ("log:\n  format: xml\n", "xml"),
            ("local_modal:\n  listen: 127.0.0.1:0\n  unix: /tmp/s\n", "choose one"),
            ("local_modal:\n  images: run\n", "run"),
            ("local_modal:\n  images: skip\n  unsafe_run_commands: true\n", "choose one"),
        ] {
            let message = read(text).expect_err("a mistake").to_string();
            assert!(message.contains(named), "{message}");
        }
    }
}
