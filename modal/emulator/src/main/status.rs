//! Commands about a running server.

use std::{
    io::Read,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use clap::Args;
use modal_emulator::{AppStatus, ContainerState, ContainerStatus, Status, TOKEN_FILE};

use crate::{DataDir, admin::Admin};

#[derive(Args)]
pub struct Show {
    #[command(flatten)]
    server: DataDir,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Show {
    pub async fn run(self) -> anyhow::Result<()> {
        let status = Admin::of(&self.server.data_dir)?.status().await?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&status)?);
        } else {
            print!("{}", render(&status, now()));
        }
        Ok(())
    }
}

#[derive(Args)]
pub struct Env {
    #[command(flatten)]
    server: DataDir,
}

impl Env {
    pub async fn run(self) -> anyhow::Result<()> {
        let status = Admin::of(&self.server.data_dir)?.status().await?;
        let path = self.server.data_dir.join(TOKEN_FILE);
        let secret = match std::fs::read_to_string(&path) {
            Ok(secret) => secret,
            // On a socket any token is accepted.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "as-local".to_owned(),
            Err(error) => return Err(error).with_context(|| format!("could not read {path:?}")),
        };
        println!("export MODAL_LOCAL_DATA_DIR={}", quoted(&status.data_dir));
        println!("export MODAL_SERVER_URL={}", quoted(&status.server_url));
        println!("export MODAL_TOKEN_ID=ak-local MODAL_TOKEN_SECRET={secret}");
        Ok(())
    }
}

#[derive(Args)]
pub struct Faults {
    #[command(flatten)]
    server: DataDir,
    /// File with the faults to set, or - for the standard input; without it, they are shown
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Faults {
    pub async fn run(self) -> anyhow::Result<()> {
        let admin = Admin::of(&self.server.data_dir)?;
        match self.file {
            None => println!("{}", serde_json::to_string_pretty(&admin.faults().await?)?),
            Some(file) if file.as_os_str() == "-" => {
                let mut faults = String::new();
                std::io::stdin().read_to_string(&mut faults).context("could not read the standard input")?;
                admin.set_faults(faults).await?;
            }
            Some(file) => {
                let faults = std::fs::read_to_string(&file).with_context(|| format!("could not read {file:?}"))?;
                admin.set_faults(faults).await?;
            }
        }
        Ok(())
    }
}

/// A value as a word of a shell.
fn quoted(value: &str) -> String {
    if value.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:@%+,=".contains(c)) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn render(status: &Status, now: f64) -> String {
    let mut text = format!(
        "Local Modal {} at {}, pid {}, data in {}, {} Volumes\n",
        status.version, status.server_url, status.pid, status.data_dir, status.volume_mode
    );
    text += &format!(
        "{}, {}, {}, {}; {} waiting\n",
        counted(status.dicts, "Dict"),
        counted(status.queues, "Queue"),
        counted(status.secrets, "Secret"),
        counted(status.volumes, "Volume"),
        counted(status.queued, "input")
    );
    let apps = status.apps.iter().flat_map(|app| app_rows(app, now)).collect();
    text += &table(["APP", "STATE", "FUNCTION", "WAITING", "RUNNING", "CONTAINERS", "NOTE"], apps);
    let containers = status.containers.iter().map(|container| container_row(container, now)).collect();
    text += &table(["CONTAINER", "APP", "FUNCTION", "STATE", "INPUTS", "SERVED", "AGE"], containers);
    text
}

fn app_rows(app: &AppStatus, now: f64) -> Vec<[String; 7]> {
    let row = |function: &str, numbers: [usize; 3], note: String| {
        let state = if app.version > 0 { format!("{} v{}", app.state, app.version) } else { app.state.clone() };
        let [queued, running, containers] = numbers.map(|n| n.to_string());
        [app.name.clone(), state, function.to_owned(), queued, running, containers, note]
    };
    if app.functions.is_empty() {
        return vec![row("-", [0; 3], String::new())];
    }
    let rows = app.functions.iter().map(|function| {
        let note = match (function.failures, function.next_call) {
            (0, None) => String::new(),
            (0, Some(at)) => format!("next call in {}", duration(at - now)),
            (1, _) => "the last container did not start".to_owned(),
            (failures, _) => format!("{failures} containers in a row did not start"),
        };
        row(&function.name, [function.queued, function.running, function.containers], note)
    });
    rows.collect()
}

fn container_row(container: &ContainerStatus, now: f64) -> [String; 7] {
    let state = match container.state {
        ContainerState::Starting => "starting",
        ContainerState::Idle => "idle",
        ContainerState::Running => "running",
        ContainerState::Stopping => "stopping",
    };
    [
        container.task_id.clone(),
        container.app.clone(),
        container.function.clone(),
        state.to_owned(),
        container.inputs.to_string(),
        container.served.to_string(),
        duration(now - container.started_at),
    ]
}

/// Renders aligned columns; nothing without rows.
fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let rows = rows.into_iter().map(|row| row.map(|cell| printable(&cell)));
    let rows: Vec<[String; N]> = [head.map(str::to_owned)].into_iter().chain(rows).collect();
    let mut text = String::from("\n");
    for row in &rows {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            format!("{cell:<width$}")
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// Escapes control characters, such as `\u{1b}`: names can come from any author.
fn printable(cell: &str) -> String {
    let shown = |character: char| {
        if character.is_control() { character.escape_default().to_string() } else { character.to_string() }
    };
    cell.chars().map(shown).collect()
}

/// `1 app`, `2 apps`.
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    match seconds {
        s if s < 100.0 => format!("{s:.0}s"),
        s if s < 6_000.0 => format!("{:.0}m", s / 60.0),
        s => format!("{:.0}h", s / 3_600.0),
    }
}

/// The status in one line.
pub fn summary(status: &Status) -> String {
    let count = |state| status.containers.iter().filter(|container| container.state == state).count();
    format!(
        "{}, {} ({} running, {} starting), {} waiting",
        counted(status.apps.len(), "app"),
        counted(status.containers.len(), "container"),
        count(ContainerState::Running),
        count(ContainerState::Starting),
        counted(status.queued, "input")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shell_quoted() {
        assert_eq!(["/a/b.c-d", "/a b", "it's"].map(quoted), ["/a/b.c-d", "'/a b'", r"'it'\''s'"]);
    }

    #[test]
    fn table_columns_are_aligned() {
        let text = table(["A", "LONG"], vec![["x".into(), "1".into()], ["long one".into(), "2".into()]]);
        assert_eq!(text, "\nA         LONG\nx         1\nlong one  2\n");
        assert_eq!(table(["A"], Vec::new()), "");
        assert_eq!([5.0, 300.0, 7_200.0, -1.0].map(duration), ["5s", "5m", "2h", "0s"]);
    }
}
