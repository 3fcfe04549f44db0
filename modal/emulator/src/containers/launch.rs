//! How a container's process is started: the only place that knows.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use modal_proto::{self as pb, function::DefinitionType};
use prost::Message;
use tokio::process::Command;

use super::{
    Containers, code,
    process::Process,
    spec::{self, Spec, Variables},
};
use crate::{
    error::Error,
    options::Options,
    shared::Shared,
    state::{Definition, State},
    views::Attachment,
};

/// The program that becomes a container.
const RUNNER: &str = include_str!("runner.py");

impl Options {
    /// The private folder of a container, gone with it.
    pub(crate) fn container_folder(&self, task_id: &str) -> PathBuf {
        self.containers_folder().join(task_id)
    }

    /// The folder with the private folders of all containers.
    pub(crate) fn containers_folder(&self) -> PathBuf {
        self.data_dir.join("containers")
    }

    /// The folder with what the containers of an app printed, one file each.
    pub(crate) fn app_log_folder(&self, app_id: &str) -> PathBuf {
        self.data_dir.join("logs").join(app_id)
    }

    /// What a container printed.
    pub(crate) fn log_path(&self, app_id: &str, task_id: &str) -> PathBuf {
        self.app_log_folder(app_id).join(format!("{task_id}.log"))
    }

    fn runner(&self) -> PathBuf {
        self.data_dir.join("runner.py")
    }

    /// Puts the runner in its place.
    pub(crate) fn install_runner(&self) -> io::Result<()> {
        fs::write(self.runner(), RUNNER)
    }
}

/// Starts the container of a task, in a process group of its own.
pub async fn launch(shared: &Shared, containers: &Containers, task_id: &str, log: &Path) -> Result<Process, Error> {
    let (definition, token) = shared.read(|state| {
        let task = state.tasks.get(task_id).ok_or(Error::NotAContainer)?;
        Ok::<_, Error>((Arc::clone(&task.definition), task.token.clone()))
    })?;
    let tree = code::materialise(shared, &definition).await?;
    let folder = prepare_folder(shared, task_id, log)?;
    let arguments = shared.read(|state| container_arguments(state, task_id, &definition))?;
    write_private(&spec::arguments_path(&folder), &arguments.encode_to_vec())?;
    let mut variables = spec::variables(shared, &definition, &folder);
    variables.extend(spec::task_variables(task_id, &token));
    let volumes = shared.views.attach(task_id, &volume_mounts(shared, &definition)).await?;
    let spec = describe(tree, volumes, variables, &folder, log, &definition);
    let path = write_spec(&folder, &spec)?;
    if definition.function.checkpointing_enabled {
        let start = || server_command(shared, &definition, &spec);
        if let Some(process) = containers.fork_servers.fork(&definition.id, &path, start).await {
            return Ok(process);
        }
    }
    let output = open_log(log)?;
    let child = command(shared, "run", &path, &spec.variables, output)?.stdin(Stdio::null()).spawn();
    let python = shared.options.python.to_string_lossy();
    let child = child.map_err(Error::io("run", python.clone()))?;
    Process::of_child(child).ok_or_else(|| Error::io("run", python)(io::Error::other("it ended at once")))
}

/// An error with its causes, for a message to the user.
pub fn explain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn describe(
    tree: PathBuf,
    volumes: Vec<Attachment>,
    variables: Variables,
    folder: &Path,
    log: &Path,
    definition: &Definition,
) -> Spec {
    let function = &definition.function;
    let from_file = function.definition_type() == DefinitionType::File && !function.module_name.is_empty();
    Spec {
        tree,
        volumes: volumes.into_iter().map(|bind| (bind.path.clone(), bind)).collect(),
        directory: None,
        root: folder.join("root"),
        preload: from_file.then(|| function.module_name.clone()).into_iter().collect(),
        variables,
        output: log.to_owned(),
    }
}

/// The command of a definition's fork server: it sees what one of the containers sees, and has a folder of its own.
fn server_command(shared: &Shared, definition: &Definition, container: &Spec) -> Option<Command> {
    let prepare = || {
        let log = shared.options.log_path(&definition.app_id, &format!("fork-server-{}", definition.id));
        let folder = prepare_folder(shared, &definition.id, &log)?;
        let variables = spec::variables(shared, definition, &folder);
        let spec = Spec { root: folder.join("root"), output: log.clone(), variables, ..container.clone() };
        let path = write_spec(&folder, &spec)?;
        command(shared, "serve", &path, &spec.variables, open_log(&log)?)
    };
    match prepare() {
        Ok(command) => Some(command),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a fork server could not be prepared");
            None
        }
    }
}

fn command(
    shared: &Shared,
    mode: &str,
    spec: &Path,
    variables: &Variables,
    output: fs::File,
) -> Result<Command, Error> {
    let errors = output.try_clone().map_err(Error::io("open", "a container's log"))?;
    let mut command = Command::new(&shared.options.python);
    command
        .arg(shared.options.runner())
        .arg(mode)
        .arg(spec)
        .env_clear()
        .envs(variables)
        .process_group(0)
        .stdout(output)
        .stderr(errors);
    Ok(command)
}

fn prepare_folder(shared: &Shared, id: &str, log: &Path) -> Result<PathBuf, Error> {
    let folder = shared.options.container_folder(id);
    for folder in [&folder.join("home"), &folder.join("tmp"), &folder.join("root"), log.parent().unwrap_or(log)] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(Error::io("create", "a container's folder"))?;
    }
    open_log(log)?;
    Ok(folder)
}

fn open_log(log: &Path) -> Result<fs::File, Error> {
    let opened = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(log);
    opened.map_err(Error::io("open", "a container's log"))
}

fn write_spec(folder: &Path, spec: &Spec) -> Result<PathBuf, Error> {
    let path = folder.join("spec.json");
    let encoded = serde_json::to_vec(spec)
        .map_err(|error| Error::io("write", "a container's description")(io::Error::other(error)))?;
    write_private(&path, &encoded)?;
    Ok(path)
}

/// It may hold secrets.
fn write_private(path: &Path, data: &[u8]) -> Result<(), Error> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| io::Write::write_all(&mut file, data))
        .map_err(Error::io("write", "a container's description"))
}

fn container_arguments(state: &State, task_id: &str, definition: &Definition) -> Result<pb::ContainerArguments, Error> {
    let app = state.app(&definition.app_id)?;
    Ok(pb::ContainerArguments {
        task_id: task_id.to_owned(),
        function_id: definition.function_id.clone(),
        app_id: app.id.clone(),
        function_def: definition.encoded.clone(),
        app_layout: Some(state.layout(&app.id)?),
        environment_name: app.environment.clone(),
        ..Default::default()
    })
}

/// The Volumes of a function that are still there.
fn volume_mounts(shared: &Shared, definition: &Definition) -> Vec<pb::VolumeMount> {
    let mounts = &definition.function.volume_mounts;
    shared.read(|state| mounts.iter().filter(|mount| state.volumes.contains_key(&mount.volume_id)).cloned().collect())
}
