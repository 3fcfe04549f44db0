//! Starting the process of a container; no other module does.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use modal_proto as pb;
use prost::Message;
use tokio::process::Command;

use super::{
    Containers, code,
    fork_server::{ForkServerKey, ForkServerStart},
    output::{self, Output},
    port,
    spec::{self, Spec, Variables},
    supervisor::Process,
};
use crate::{
    error::Error,
    ids::new_id,
    images::{self, Environment},
    options::Options,
    shared::Shared,
    state::{Definition, State},
};

/// The program that becomes a container, with its modules: the container's files, interruptions, changes to the SDK,
/// and errors that skipped steps of the image cause.
const RUNNER: [(&str, &str); 5] = [
    ("runner.py", include_str!("runner.py")),
    ("filesystem.py", include_str!("filesystem.py")),
    ("interruption.py", include_str!("interruption.py")),
    ("sdk_patches.py", include_str!("sdk_patches.py")),
    ("missing.py", include_str!("missing.py")),
];

impl Options {
    fn runner(&self) -> PathBuf {
        self.data_dir.join("runner").join("runner.py")
    }

    /// Writes the runner into the data folder.
    pub(crate) fn install_runner(&self) -> io::Result<()> {
        let folder = self.data_dir.join("runner");
        fs::create_dir_all(&folder)?;
        RUNNER.iter().try_for_each(|(name, content)| fs::write(folder.join(name), content))
    }
}

/// Creates the folder of a container, with the pipes for its output.
pub fn prepare(shared: &Shared, definition: &Definition, id: &str) -> Result<Output, Error> {
    let folder = shared.options.container_folder(id);
    for name in ["home", "tmp", "root"] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder.join(name))
            .map_err(Error::io("create", "a container's folder"))?;
    }
    Output::create(shared, &folder, &definition.app_id, &definition.function_id, id)
}

/// Starts the container of a task, in a process group of its own.
pub async fn launch(
    shared: &Arc<Shared>,
    containers: &Containers,
    definition: &Definition,
    task_id: &str,
) -> Result<Process, Error> {
    let token = shared.read(|state| state.tasks.get(task_id).map(|task| task.token.clone()));
    let token = token.ok_or(Error::NotAContainer)?;
    port::check_free(definition)?;
    let folder = shared.options.container_folder(task_id);
    let image = images::environment(shared, &definition.function.image_id).await?;
    let tree = code::materialize(shared, definition, &image).await?;
    let arguments = shared.read(|state| container_arguments(state, task_id, definition))?;
    write_private(&spec::arguments_path(&folder), &arguments.encode_to_vec())?;
    let common = spec::variables(shared, definition, &image);
    let mounts = volume_mounts(shared, definition);
    let volumes = shared.views.attach(task_id, &mounts).await?;
    let mut variables = common.clone();
    variables.extend(spec::task_variables(task_id, &token));
    let spec = Spec::new(&shared.options, definition, &image, tree, volumes, variables, &folder);
    let path = write_spec(&folder, &spec)?;
    let key = ForkServerKey::new(definition, &image, &spec, &mounts, &common)?;
    let start = async || fork_server(shared, definition, &image, &spec, common).await;
    if let Some(process) = containers.fork_servers.fork(shared, &key, &definition.id, &path, start).await {
        return Ok(process);
    }
    // The fork server may have read it, which removes it.
    write_spec(&folder, &spec)?;
    let [output, errors] = output::paths(&folder).map(open_pipe);
    let child =
        command(shared, &image, "run", &path, &spec).stdin(Stdio::null()).stdout(output?).stderr(errors?).spawn();
    let python = image.python.to_string_lossy();
    let child = child.map_err(Error::io("run", python.clone()))?;
    Process::of_child(child).ok_or_else(|| Error::io("run", python)(io::Error::other("it ended at once")))
}

/// A fork server for containers like `container`: it sees the same files, and has a folder of its own.
async fn fork_server(
    shared: &Shared,
    definition: &Definition,
    image: &Environment,
    container: &Spec,
    variables: Variables,
) -> Option<ForkServerStart> {
    let prepare = async || {
        let id = new_id("fs");
        let output = prepare(shared, definition, &id)?;
        let folder = shared.options.container_folder(&id);
        let volumes = shared.views.attach(&id, &volume_mounts(shared, definition)).await?;
        let spec = Spec::new(&shared.options, definition, image, container.tree.clone(), volumes, variables, &folder);
        let path = write_spec(&folder, &spec)?;
        let [_, errors] = output::paths(&folder).map(open_pipe);
        let mut command = command(shared, image, "serve", &path, &spec);
        command.stderr(errors?);
        Ok::<_, Error>(ForkServerStart { id, command, output, folder, is_snapshot: !spec.preload.is_empty() })
    };
    match prepare().await {
        Ok(start) => Some(start),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a fork server could not be prepared");
            None
        }
    }
}

fn command(shared: &Shared, image: &Environment, mode: &str, path: &Path, spec: &Spec) -> Command {
    let mut command = Command::new(&image.python);
    command.arg(shared.options.runner()).arg(mode).arg(path).env_clear().envs(&spec.variables).process_group(0);
    command
}

fn open_pipe(path: PathBuf) -> Result<fs::File, Error> {
    fs::OpenOptions::new().write(true).open(path).map_err(Error::io("open", "a container's pipe"))
}

fn write_spec(folder: &Path, spec: &Spec) -> Result<PathBuf, Error> {
    let path = folder.join("spec.json");
    let encoded = serde_json::to_vec(spec)
        .map_err(|error| Error::io("write", "a container's description")(io::Error::other(error)))?;
    write_private(&path, &encoded)?;
    Ok(path)
}

/// Writes a file that may hold secrets.
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
        serialized_params: state.function(&definition.function_id)?.params(),
        app_layout: Some(state.layout_for(&definition.function_id)?),
        environment_name: app.environment.clone(),
        ..Default::default()
    })
}

/// The Volumes of a function that still exist.
fn volume_mounts(shared: &Shared, definition: &Definition) -> Vec<pb::VolumeMount> {
    let mounts = &definition.function.volume_mounts;
    shared.read(|state| mounts.iter().filter(|mount| state.volumes.contains_key(&mount.volume_id)).cloned().collect())
}
