//! The status of a server, for people and scripts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    options::VolumeMode,
    shared::Shared,
    state::{App, Function, State, Task},
};

/// A snapshot of the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    pub server_url: String,
    pub data_dir: String,
    pub pid: u32,
    pub version: String,
    /// `bind` or `strict`.
    pub volume_mode: String,
    /// Apps that are not stopped.
    pub apps: Vec<AppStatus>,
    pub containers: Vec<ContainerStatus>,
    /// Inputs that wait for a container, of all functions.
    pub queued: usize,
    pub dicts: usize,
    pub queues: usize,
    pub secrets: usize,
    pub volumes: usize,
    /// How often each RPC was called since the server started, including those that are not implemented.
    pub rpcs: BTreeMap<String, u64>,
}

/// An app.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AppStatus {
    pub app_id: String,
    pub name: String,
    pub environment: String,
    /// Modal's name of the state, such as `deployed`.
    pub state: String,
    pub version: i32,
    pub functions: Vec<FunctionStatus>,
}

/// A function of an app.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FunctionStatus {
    pub function_id: String,
    pub name: String,
    /// Inputs that wait for a container.
    pub queued: usize,
    /// Inputs that containers are processing.
    pub running: usize,
    pub containers: usize,
    /// Containers in a row that did not start.
    pub failures: u32,
    /// When its schedule calls it next, in seconds since 1970.
    pub next_call: Option<f64>,
}

/// A container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerStatus {
    pub task_id: String,
    pub app: String,
    pub function: String,
    pub state: ContainerState,
    /// Seconds since 1970.
    pub started_at: f64,
    /// The inputs that it is processing, or the HTTP requests if it is a server.
    pub inputs: usize,
    /// How many it has received since it started.
    pub served: u32,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    Starting,
    Idle,
    Running,
    Stopping,
}

impl Status {
    /// The current status.
    pub fn of(shared: &Shared) -> Self {
        let options = &shared.options;
        shared.read(|state| Self {
            server_url: shared.server_url.clone(),
            data_dir: options.data_dir.display().to_string(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            volume_mode: match options.volumes {
                VolumeMode::Bind => "bind".to_owned(),
                VolumeMode::Strict => "strict".to_owned(),
            },
            apps: state.apps.values().filter(|app| !app.is_stopped()).map(|app| describe_app(state, app)).collect(),
            containers: state.tasks.values().map(|task| describe_task(state, task)).collect(),
            queued: state.queues.values().map(std::collections::VecDeque::len).sum(),
            dicts: state.dicts.len(),
            queues: state.item_queues.len(),
            secrets: state.secrets.values().filter(|secret| !secret.name.is_empty()).count(),
            volumes: state.volumes.len(),
            rpcs: shared.counts.list(),
        })
    }
}

fn describe_app(state: &State, app: &App) -> AppStatus {
    let names: BTreeMap<&String, &String> = app.function_ids.iter().map(|(tag, id)| (id, tag)).collect();
    let functions = state.functions.values().filter(|function| function.app_id == app.id && function.live.is_some());
    AppStatus {
        app_id: app.id.clone(),
        name: if app.name.is_empty() { app.description.clone() } else { app.name.clone() },
        environment: app.environment.clone(),
        state: app.state().as_str_name().trim_start_matches("APP_STATE_").to_lowercase(),
        version: app.version,
        functions: functions.map(|function| describe_function(state, function, &names)).collect(),
    }
}

fn describe_function(state: &State, function: &Function, names: &BTreeMap<&String, &String>) -> FunctionStatus {
    let tasks = || state.tasks.values().filter(|task| task.definition.function_id == function.id);
    let name = names.get(&function.id).map_or_else(|| state.function_name(function), |name| (*name).clone());
    FunctionStatus {
        function_id: function.id.clone(),
        name,
        queued: state.queues.get(&function.id).map_or(0, std::collections::VecDeque::len),
        running: tasks().map(|task| task.running.len()).sum(),
        containers: tasks().count(),
        failures: state.health.get(&function.id).map_or(0, |health| health.failures),
        next_call: state.schedules.get(&function.id).map(|schedule| schedule.next_at),
    }
}

fn describe_task(state: &State, task: &Task) -> ContainerStatus {
    let app = state.apps.get(&task.definition.app_id);
    let phase = match task {
        Task { stop: Some(_), .. } => ContainerState::Stopping,
        Task { ready: false, .. } => ContainerState::Starting,
        task if !task.is_busy() => ContainerState::Idle,
        _ => ContainerState::Running,
    };
    ContainerStatus {
        task_id: task.id.clone(),
        app: app.map(|app| if app.name.is_empty() { &app.description } else { &app.name }).cloned().unwrap_or_default(),
        function: task.definition.function.function_name.clone(),
        state: phase,
        started_at: task.started_at,
        inputs: task.running.len() + task.requests as usize,
        served: task.served,
    }
}
