//! systemd user units, rendered from the checked-in ones.

use std::{path::PathBuf, process::Command};

use airflow_serverless_api::home::Home;

use super::{Installed, Plan, remove, run, user_folder, write};
use crate::error::CliError;

const SERVICE: &str = "airflowd.service";
const SOCKET: &str = "airflowd.socket";
/// These can also be copied by hand; `install` inserts the paths of this installation.
const SERVICE_UNIT: &str = include_str!("../../../systemd/airflowd.service");
const SOCKET_UNIT: &str = include_str!("../../../systemd/airflowd.socket");

/// The user's own systemd.
pub struct Systemd {
    folder: PathBuf,
}

impl Systemd {
    pub fn new() -> Result<Self, CliError> {
        let chosen = std::env::var_os("XDG_CONFIG_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = chosen.map_or_else(|| user_folder(".config"), Ok)?;
        Ok(Self { folder: folder.join("systemd/user") })
    }

    /// Whether the units belong to this home.
    pub fn has(&self, home: &Home) -> bool {
        let unit = std::fs::read_to_string(self.folder.join(SOCKET)).unwrap_or_default();
        unit.lines().any(|line| line == listen_stream(home))
    }

    /// Installs the units; without the sandbox if the system does not allow it for user units.
    pub fn install(&self, plan: &Plan<'_>) -> Result<Installed, CliError> {
        plan.make_folders()?;
        let files = [SERVICE, SOCKET].map(|name| self.folder.join(name)).to_vec();
        let unit = service_unit(plan);
        write(&self.folder.join(SOCKET), &socket_unit(plan.home))?;
        match self.enable(&unit) {
            Ok(()) => Ok(Installed { files, note: None }),
            Err(_) if could_not_be_prepared() => {
                systemctl(&["stop", SERVICE])?;
                systemctl(&["reset-failed", SOCKET, SERVICE])?;
                self.enable(&without_sandbox(&unit))?;
                let note = "this system does not allow sandboxes for users, so airflowd runs without one \
                            (user namespaces are off: kernel.unprivileged_userns_clone, or AppArmor)";
                Ok(Installed { files, note: Some(note) })
            }
            Err(failure) => Err(failure),
        }
    }

    fn enable(&self, unit: &str) -> Result<(), CliError> {
        write(&self.folder.join(SERVICE), unit)?;
        systemctl(&["daemon-reload"])?;
        // The socket first: systemd passes it to the service.
        systemctl(&["enable", "--now", SOCKET])?;
        systemctl(&["enable", "--now", SERVICE])
    }

    pub fn uninstall(&self) -> Result<Vec<PathBuf>, CliError> {
        systemctl(&["disable", "--now", SOCKET, SERVICE])?;
        let mut removed = Vec::new();
        for path in [SERVICE, SOCKET].map(|name| self.folder.join(name)) {
            if remove(&path)? {
                removed.push(path);
            }
        }
        systemctl(&["daemon-reload"])?;
        Ok(removed)
    }

    pub fn start(&self) -> Result<(), CliError> {
        systemctl(&["start", SOCKET, SERVICE])
    }

    /// Stops the socket as well: otherwise the next command would start the daemon again.
    pub fn stop(&self) -> Result<(), CliError> {
        systemctl(&["stop", SOCKET, SERVICE])
    }
}

/// Returns the command that shows the journal of the service.
pub fn logs(lines: usize, follow: bool, json: bool) -> Command {
    let mut command = Command::new("journalctl");
    command.args(["--user", "--unit", SERVICE, "--no-pager", "--lines"]).arg(lines.to_string());
    if follow {
        command.arg("--follow");
    }
    if json {
        command.args(["--output", "json"]);
    }
    command
}

fn systemctl(arguments: &[&str]) -> Result<(), CliError> {
    run("systemctl", &[&["--user"], arguments].concat()).map(|_| ())
}

/// Checks that systemd runs for this user.
pub fn usable() -> Result<(), CliError> {
    if systemctl(&["show-environment"]).is_ok() {
        return Ok(());
    }
    let hint = "`airflow-serverless daemon start` starts the daemon without a service manager";
    let reason = "systemd cannot manage the daemon: `systemctl --user` finds no service manager for this user (there is none in a \
                  container or without a login session)";
    Err(CliError::input(reason, Vec::new(), Some(hint)))
}

/// Whether the service failed before its program ran: systemd reserves these codes for that.
fn could_not_be_prepared() -> bool {
    let shown = run("systemctl", &["--user", "show", "--property", "ExecMainStatus", "--value", SERVICE]);
    let code = shown.ok().and_then(|output| String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().ok());
    code.is_some_and(|code| (200..=245).contains(&code))
}

/// Removes the part of the unit that needs a user namespace.
fn without_sandbox(unit: &str) -> String {
    let is_outside = |line: &&str, inside: &mut bool| {
        *inside = (*inside || line.starts_with("# The sandbox.")) && !line.starts_with("# End of the sandbox.");
        !*inside && !line.starts_with("# End of the sandbox.")
    };
    let mut inside = false;
    unit.lines().filter(|line| is_outside(line, &mut inside)).map(|line| format!("{line}\n")).collect()
}

fn listen_stream(home: &Home) -> String {
    format!("ListenStream={}", specifiers(&home.socket().display().to_string()))
}

/// Renders the unit of the service with the paths and variables of this installation.
fn service_unit(plan: &Plan<'_>) -> String {
    let folders: Vec<_> = plan.folders().into_iter().map(|folder| quoted(&format!("-{}", folder.display()))).collect();
    let mut text = String::new();
    for line in SERVICE_UNIT.lines() {
        if line.starts_with("ExecStart=") {
            for (name, value) in &plan.variables {
                text.push_str(&format!("Environment={}\n", quoted(&format!("{name}={value}"))));
            }
            // `ExecStart` is the only line where variables are expanded.
            let daemon = quoted(&plan.daemon.display().to_string()).replace('$', "$$");
            text.push_str(&format!("ExecStart={daemon}\n"));
        } else if line.starts_with("ReadWritePaths=-%h") {
            text.push_str(&format!("ReadWritePaths={}\n", folders.join(" ")));
        } else {
            text.push_str(&format!("{line}\n"));
        }
    }
    text
}

fn socket_unit(home: &Home) -> String {
    let lines = SOCKET_UNIT
        .lines()
        .map(|line| if line.starts_with("ListenStream=") { listen_stream(home) + "\n" } else { format!("{line}\n") });
    lines.collect()
}

/// Quotes a word of a unit.
fn quoted(text: &str) -> String {
    let text = specifiers(text).replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{text}\"")
}

/// Escapes `%`, which begins a specifier.
fn specifiers(text: &str) -> String {
    text.replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn units_contain_escaped_paths_of_the_installation() {
        let home = Home::below("/srv/100% of it".into());
        let variables = [("AIRFLOW_SERVERLESS_HOME", "/srv/100% of it"), ("PATH", "/bin:/$a\"b")]
            .map(|(n, v)| (n.into(), v.into()));
        let plan = Plan { home: &home, daemon: Path::new("/opt/air $flow/airflowd"), variables: variables.into() };
        let unit = service_unit(&plan);
        for line in [
            "Environment=\"AIRFLOW_SERVERLESS_HOME=/srv/100%% of it\"",
            "Environment=\"PATH=/bin:/$a\\\"b\"",
            "ExecStart=\"/opt/air $$flow/airflowd\"",
        ] {
            assert!(unit.lines().any(|found| found == line), "{line} is not in\n{unit}");
        }
        assert!(unit.contains("\"-/srv/100%% of it/data\"") && !unit.contains("%h/"), "{unit}");
        let bare = without_sandbox(&unit);
        assert!(unit.contains("\nPrivateUsers=") && bare.contains("\nSystemCallFilter="), "{unit}");
        for word in ["PrivateUsers=", "ReadWritePaths=", "ProtectSystem=", "PrivateDevices=", "# The sandbox"] {
            assert!(!bare.lines().any(|line| line.starts_with(word)), "{word} is in\n{bare}");
        }
        assert!(bare.ends_with("Also=airflowd.socket\n"), "{bare}");
        assert!(socket_unit(&home).contains("\nListenStream=/srv/100%% of it/run/airflowd.sock\n"));
    }
}
