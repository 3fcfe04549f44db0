//! What the integration tests share: an installation with a daemon of its own, driven through the real CLI.
//!
//! Everything is real: `airflowd`, Local Modal, the Modal SDK, Airflow. The Python runtime is created once and shared
//! (`AIRFLOW_SERVERLESS_RUNTIMES`); the rest is in a temporary folder that is removed with the test.

pub mod daemon;
pub mod databases;
pub mod footprint;
pub mod postgres;
mod processes;
pub mod records;
pub mod requests;
pub mod served;
mod template;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, Instant},
};

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

/// Time limit for one CLI command: a cold start of everything on a busy machine.
const COMMAND_LIMIT: Duration = Duration::from_secs(240);
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// An isolated installation: home folder, daemon, environments.
pub struct Installation {
    root: PathBuf,
    _folder: TempDir,
}

/// The result of a command.
#[derive(Debug)]
pub struct Done {
    /// The exit code; -1 if a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Self { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Done {
    /// Parses the output of a command with `--json`.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self:#?}"))
    }

    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }

    /// Asserts that the command was refused, with each part somewhere in the message.
    #[track_caller]
    pub fn refused(self, parts: &[&str]) -> Self {
        assert_eq!(self.code, 1, "{self:#?}");
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} in {self:#?}");
        }
        self
    }
}

impl Default for Installation {
    fn default() -> Self {
        Self::new()
    }
}

impl Installation {
    pub fn new() -> Self {
        Self::below("")
    }

    /// Creates an installation in this subfolder of a temporary one. With an empty path, socket paths fit their
    /// addresses.
    pub fn below(path: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("as-").tempdir().expect("a temporary folder");
        let root = if path.is_empty() { folder.path().to_owned() } else { folder.path().join(path) };
        let it = Self { root, _folder: folder };
        fs::create_dir_all(it.user_home()).expect("a home");
        it
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn home(&self) -> PathBuf {
        self.root().join("home")
    }

    /// Returns the home of the user, which containers read; they write to homes of their own.
    pub fn user_home(&self) -> PathBuf {
        self.root().join("user")
    }

    pub fn socket(&self) -> PathBuf {
        self.home().join("run/airflowd.sock")
    }

    /// Returns a command for a program of this workspace, in the environment of this installation.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.program(program));
        command.env_remove("AIRFLOW_SERVERLESS_ENV").envs(self.variables()).timeout(COMMAND_LIMIT);
        command
    }

    /// Returns the path of a program of this workspace.
    pub fn program(&self, name: &str) -> PathBuf {
        binaries().join(name)
    }

    /// Returns the environment variables that select this installation.
    pub fn variables(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("AIRFLOW_SERVERLESS_HOME", self.home()),
            ("AIRFLOW_SERVERLESS_RUNTIMES", runtimes()),
            ("HOME", self.user_home()),
        ]
    }

    /// Starts a daemon that finds no Python: environments get their objects at Modal, but are not deployed.
    pub fn start_without_python(&self) {
        let mut command = self.command("airflow-serverless");
        command.env("AIRFLOW_SERVERLESS_PYTHON", "/nowhere/python");
        command.env("AIRFLOW_SERVERLESS_RUNTIMES", self.root().join("none"));
        command.args(["daemon", "start"]).assert().success();
    }

    /// Runs the CLI.
    pub fn cli(&self, arguments: &[&str]) -> Done {
        let output = self.command("airflow-serverless").args(arguments).output().expect("the CLI runs");
        let done = Done::from(output);
        assert!(done.code >= 0, "{arguments:?} was killed: {done:#?}");
        done
    }

    /// Runs the CLI on environment `dev`; the words of `command` are separated by spaces.
    pub fn dev(&self, command: &str, more: &[&str]) -> Done {
        let mut arguments: Vec<&str> = command.split(' ').collect();
        arguments.extend(["--env", "dev"]);
        arguments.extend(more);
        self.cli(&arguments)
    }

    /// Creates environment `dev` with a tick every `interval` seconds.
    pub fn create_dev(&self, interval: u32) -> Done {
        let config = self.write("config.yaml", &config(interval));
        self.dev("create", &["--config", config.to_str().expect("text")])
    }

    /// Writes a file into the installation's folder.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.root().join(name);
        fs::write(&path, content).expect("a written file");
        path
    }

    /// Uploads a DAG file of `tests/dags`.
    #[track_caller]
    pub fn upload(&self, name: &str) -> Done {
        let path = dag_file(name);
        self.dev("dags create", &["--file", path.to_str().expect("text")]).succeeded()
    }

    /// Runs a DAG to its end; returns the result of the command and the run.
    pub fn run_dag(&self, dag_id: &str, more: &[&str]) -> (Done, Value) {
        let mut arguments = vec!["--dag-id", dag_id, "--wait", "--json"];
        arguments.extend(more);
        let done = self.dev("dags trigger", &arguments);
        let run = done.json();
        (done, run)
    }

    /// Returns the log of a task as text.
    #[track_caller]
    pub fn task_log(&self, run: &Value, task_id: &str, more: &[&str]) -> String {
        let (dag_id, run_id) = (text(&run["dag_id"]), text(&run["dag_run_id"]));
        let mut arguments = vec!["--dag-id", dag_id, "--run-id", run_id, "--task-id", task_id];
        arguments.extend(more);
        self.dev("tasks logs", &arguments).succeeded().stdout
    }

    /// Returns the Volume's folder of the only environment.
    pub fn volume(&self) -> PathBuf {
        let mut volumes = fs::read_dir(self.home().join("data/modal/volumes")).expect("volumes");
        volumes.next().expect("a Volume").expect("a folder").path()
    }

    /// Whether any file in the installation's home contains the text.
    pub fn holds(&self, text: &str) -> bool {
        !self.files_with(text).is_empty()
    }

    /// Returns the files in the installation's home that contain the text.
    pub fn files_with(&self, text: &str) -> Vec<PathBuf> {
        let mut grep = std::process::Command::new("grep");
        let found = grep.env("LC_ALL", "C").args(["-rlaF", "-e", text]).arg(self.home()).output().expect("grep runs");
        // Files come and go while the daemon works; any other error means that something was not searched.
        let problems = String::from_utf8_lossy(&found.stderr);
        let unread: Vec<_> = problems.lines().filter(|line| !line.ends_with("No such file or directory")).collect();
        assert!(unread.is_empty() && self.home().exists(), "not searched: {unread:?}");
        String::from_utf8_lossy(&found.stdout).lines().map(PathBuf::from).collect()
    }

    /// Waits until no file in the installation's home contains the text. A starting container may still hold it for a
    /// moment.
    #[track_caller]
    pub fn has_in_no_file(&self, text: &str) {
        eventually(&format!("{text} to be in none of these files: {:?}", self.files_with(text)), || {
            self.files_with(text).is_empty().then_some(())
        });
    }

    /// Returns the daemon's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home().join("state/airflowd.log")).unwrap_or_default()
    }

    /// Returns the exceptions in the output of scheduler and worker containers. (Exceptions of tasks are in the tasks'
    /// logs.)
    pub fn tracebacks(&self) -> String {
        let apps = fs::read_dir(self.home().join("data/modal/logs")).into_iter().flatten().filter_map(Result::ok);
        let files = apps.flat_map(|app| fs::read_dir(app.path()).into_iter().flatten().filter_map(Result::ok));
        let texts = files.map(|file| fs::read_to_string(file.path()).expect("a log"));
        let lines: Vec<Value> = texts
            .flat_map(|text| text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect::<Vec<_>>())
            .collect();
        let shown = lines.iter().map(|line| text(&line["data"]));
        shown.skip_while(|line| !line.starts_with("Traceback")).take(30).collect()
    }

    /// Writes the daemon's settings, for its next start.
    pub fn set_up_daemon(&self, settings: &str) {
        let folder = self.home().join("config");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("airflowd.yaml"), settings).expect("written settings");
    }
}

/// Returns a configuration with a tick every `interval` seconds.
pub fn config(interval: u32) -> String {
    format!("database:\n  type: sqlite\nscheduler:\n  interval_seconds: {interval}\nexecutor:\n  parallelism: 4\n")
}

/// Waits until `look` returns a value. Polls cheaply, so that the awaited work gets most of the processor.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let began = Instant::now();
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::park_timeout((began.elapsed() * 3).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
    }
}

/// Returns the text of a JSON string.
#[track_caller]
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// Returns `(state, try_number)` of each task of a run, sorted by task and map index.
pub fn states(run: &Value) -> Vec<(String, String, i64)> {
    let tasks = run["task_instances"].as_array().expect("tasks");
    let mut states: Vec<_> = tasks
        .iter()
        .map(|task| {
            let state = task["state"].as_str().unwrap_or("none").to_owned();
            (text(&task["task_id"]).to_owned(), state, task["try_number"].as_i64().expect("a number"))
        })
        .collect();
    states.sort();
    states
}

/// Returns the path of a DAG file of `tests/dags`.
pub fn dag_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dags").join(name)
}

/// Returns the folder of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Returns the folder of cargo's binaries: two levels above the test's own executable.
pub fn binaries() -> PathBuf {
    let test = std::env::current_exe().expect("the test's executable");
    test.ancestors().nth(2).expect("a target folder").to_owned()
}

/// Returns the interpreter of a complete runtime.
pub fn python() -> PathBuf {
    let runtimes = fs::read_dir(runtimes()).expect("runtimes").filter_map(Result::ok);
    let mut pythons = runtimes.map(|folder| folder.path().join("bin/python"));
    pythons.find(|python| python.exists()).expect("a runtime")
}

/// Returns the folder of the Python runtime that all installations share.
pub fn runtimes() -> PathBuf {
    std::env::var_os("AIRFLOW_SERVERLESS_RUNTIMES").map_or_else(|| workspace().join("target/runtimes"), PathBuf::from)
}
