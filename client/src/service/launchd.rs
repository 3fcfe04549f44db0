//! A launchd agent, on macOS.

use std::path::PathBuf;

use airflow_serverless_api::home::Home;

use super::{Installed, Plan, remove, run, user_folder, write};
use crate::error::CliError;

const LABEL: &str = "airflow-serverless.airflowd";

/// The user's own launchd.
pub struct Launchd {
    plist: PathBuf,
    /// The path of `launchctl`.
    launchctl: String,
}

impl Launchd {
    pub fn new() -> Result<Self, CliError> {
        let folder = user_folder("Library/LaunchAgents")?;
        Ok(Self { plist: folder.join(format!("{LABEL}.plist")), launchctl: "launchctl".to_owned() })
    }

    /// Whether the agent belongs to this home.
    pub fn has(&self, home: &Home) -> bool {
        let text = std::fs::read_to_string(&self.plist).unwrap_or_default();
        text.contains(&string(&home.output().display().to_string()))
    }

    pub fn install(&self, plan: &Plan<'_>) -> Result<Installed, CliError> {
        write(&self.plist, &agent(plan))?;
        // A loaded agent keeps its earlier definition.
        self.stop()?;
        self.start()?;
        Ok(Installed { files: vec![self.plist.clone()], note: None })
    }

    pub fn uninstall(&self) -> Result<Vec<PathBuf>, CliError> {
        self.stop()?;
        Ok(if remove(&self.plist)? { vec![self.plist.clone()] } else { Vec::new() })
    }

    /// Loading starts the agent; a loaded agent that has ended needs a kickstart.
    pub fn start(&self) -> Result<(), CliError> {
        if self.is_loaded() {
            return self.launchctl(&["kickstart", &name()]);
        }
        self.launchctl(&["bootstrap", &domain(), &self.plist.display().to_string()])
    }

    pub fn stop(&self) -> Result<(), CliError> {
        if self.is_loaded() { self.launchctl(&["bootout", &name()]) } else { Ok(()) }
    }

    fn is_loaded(&self) -> bool {
        self.launchctl(&["print", &name()]).is_ok()
    }

    fn launchctl(&self, arguments: &[&str]) -> Result<(), CliError> {
        run(&self.launchctl, arguments).map(|_| ())
    }
}

/// Returns launchd's name of the agent.
fn name() -> String {
    format!("{}/{LABEL}", domain())
}

/// Returns the domain of this user's session.
fn domain() -> String {
    format!("gui/{}", rustix::process::getuid().as_raw())
}

/// Renders the agent as an XML property list.
fn agent(plan: &Plan<'_>) -> String {
    let home = plan.home;
    let daemon = plan.daemon.display().to_string();
    let (log, output) = (home.log().display().to_string(), home.output().display().to_string());
    let arguments = [daemon.as_str(), "--log-file", &log].map(string).join("");
    let variables = plan.variables.iter().map(|(name, value)| format!("<key>{}</key>{}", escaped(name), string(value)));
    let variables: String = variables.collect();
    // Starts with the session, restarts after a failure, at most every ten seconds.
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key><string>{LABEL}</string>
  <key>ProgramArguments</key><array>{arguments}</array>
  <key>EnvironmentVariables</key><dict>{variables}</dict>
  <key>RunAtLoad</key><true/>
  <key>KeepAlive</key><dict><key>SuccessfulExit</key><false/></dict>
  <key>ThrottleInterval</key><integer>10</integer>
  <key>ExitTimeOut</key><integer>75</integer>
  <key>Umask</key><integer>63</integer>
  <key>ProcessType</key><string>Adaptive</string>
  <key>StandardOutPath</key>{output}
  <key>StandardErrorPath</key>{output}
</dict>
</plist>
"#,
        output = string(&output),
    )
}

fn string(text: &str) -> String {
    format!("<string>{}</string>", escaped(text))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write,
        os::unix::fs::symlink,
        path::Path,
        process::{Command, Stdio},
    };

    use serde_json::json;

    use super::*;

    /// Checked with an independent property list parser.
    #[test]
    fn agent_plist_is_valid_with_special_characters() {
        let home = Home::below("/Users/a & b/<home>".into());
        let variables = vec![("AIRFLOW_SERVERLESS_HOME".to_owned(), "/Users/a & b/<home>".to_owned())];
        let plan = Plan { home: &home, daemon: Path::new("/opt/airflowd"), variables };
        let script = "import plistlib, json, sys; print(json.dumps(plistlib.loads(sys.stdin.buffer.read())))";
        let mut python = Command::new("python3");
        let mut python =
            python.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
        let mut stdin = python.stdin.take().expect("its input");
        stdin.write_all(agent(&plan).as_bytes()).expect("written");
        drop(stdin);
        let output = python.wait_with_output().expect("its output");
        let read: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a property list");
        let log = "/Users/a & b/<home>/state/airflowd.log";
        assert_eq!(read["ProgramArguments"], json!(["/opt/airflowd", "--log-file", log]));
        assert_eq!(read["EnvironmentVariables"], json!({"AIRFLOW_SERVERLESS_HOME": "/Users/a & b/<home>"}));
        assert_eq!(read["KeepAlive"], json!({"SuccessfulExit": false}));
        assert_eq!(read["StandardErrorPath"], "/Users/a & b/<home>/state/airflowd.out");
        assert_eq!(read["Umask"], 0o077);
    }

    #[test]
    fn loaded_agent_is_kickstarted_instead_of_bootstrapped() {
        let folder = std::env::temp_dir().join(format!("launchd-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).expect("a folder");
        let program = folder.join("launchctl");
        symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/launchctl.sh"), &program).expect("a program");
        let launchd = Launchd { plist: folder.join("plist"), launchctl: program.display().to_string() };
        for _ in 0..2 {
            launchd.start().expect("started");
        }
        for _ in 0..2 {
            launchd.stop().expect("stopped");
        }
        let said = fs::read_to_string(folder.join("said")).expect("what it was told");
        fs::remove_dir_all(&folder).expect("removed");
        let said: Vec<_> = said.lines().collect();
        assert_eq!(said, ["print", "bootstrap", "print", "kickstart", "print", "bootout", "print"]);
    }
}
