//! How a container's process is started: the only place that knows.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use modal_proto as pb;
use prost::Message;
use tokio::process::{Child, Command};

use super::code;
use crate::{
    error::Error,
    options::Options,
    shared::Shared,
    state::{Definition, State},
};

/// The header with which a container says which one it is. The SDK adds it to every request on request.
pub const TASK_HEADER: &str = "x-modal-local-task";

/// The variable that tells containers where Volumes really are: a JSON object {mount path: folder}. Absolute paths of
/// Modal containers do not exist on this machine, so code that wants its Volume asks here first.
const VOLUMES_VARIABLE: &str = "MODAL_LOCAL_VOLUMES";

/// The SDK finds the description of the container by this variable; it also marks our processes.
pub const ARGUMENTS_VARIABLE: &str = "MODAL_CONTAINER_ARGUMENTS_PATH";

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
}

/// Starts the container of a task in a process group of its own, with what it prints in `log`.
pub async fn launch(shared: &Shared, task_id: &str, log: &Path) -> Result<Child, Error> {
    let options = &shared.options;
    let (definition, token) = shared.read(|state| {
        let task = state.tasks.get(task_id).ok_or(Error::NotAContainer)?;
        Ok::<_, Error>((Arc::clone(&task.definition), task.token.clone()))
    })?;
    let tree = code::materialise(shared, &definition).await?;
    let folder = options.container_folder(task_id);
    for folder in [&folder.join("home"), &folder.join("tmp"), &options.app_log_folder(&definition.app_id)] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(Error::io("create", "a container's folder"))?;
    }
    let arguments = folder.join("arguments");
    let encoded = shared.read(|state| container_arguments(state, task_id, &definition))?.encode_to_vec();
    fs::write(&arguments, encoded).map_err(Error::io("write", "a container's arguments"))?;
    let output = fs::File::create(log).map_err(Error::io("create", "a container's log"))?;
    let errors = output.try_clone().map_err(Error::io("create", "a container's log"))?;
    let mut variables = shared.read(|state| user_variables(state, &definition));
    variables.extend(own_variables(shared, &definition, task_id, &token, &tree, &folder));
    for (_, host) in volume_folders(shared, &definition) {
        fs::create_dir_all(host).map_err(Error::io("create", "the Volume's folder"))?;
    }
    Command::new(&options.python)
        .args(["-m", "modal._container_entrypoint"])
        .env_clear()
        .envs(variables)
        .current_dir(tree.join(code::HOME))
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(Error::io("run", options.python.to_string_lossy()))
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

fn container_arguments(state: &State, task_id: &str, definition: &Definition) -> Result<pb::ContainerArguments, Error> {
    let app = state.app(&definition.app_id)?;
    Ok(pb::ContainerArguments {
        task_id: task_id.to_owned(),
        function_id: definition.function_id.clone(),
        app_id: app.id.clone(),
        function_def: definition.encoded.clone(),
        serialized_params: state.function(&definition.function_id)?.params(),
        app_layout: Some(state.layout(&app.id)?),
        environment_name: app.environment.clone(),
        ..Default::default()
    })
}

/// The variables of the function's Secrets; the last one wins, as on Modal.
fn user_variables(state: &State, definition: &Definition) -> BTreeMap<OsString, OsString> {
    let secrets = definition.function.secret_ids.iter().filter_map(|id| state.secrets.get(id));
    secrets.flat_map(|secret| &secret.variables).map(|(name, value)| (name.into(), value.into())).collect()
}

/// What every container gets. Nothing of the server's own environment: it may hold credentials, and variables of the
/// tool that started it would travel on with every request.
fn own_variables(
    shared: &Shared,
    definition: &Definition,
    task_id: &str,
    token: &str,
    tree: &Path,
    folder: &Path,
) -> BTreeMap<OsString, OsString> {
    // What is installed beside the interpreter comes first.
    let python_folder = shared.options.python.parent().unwrap_or(Path::new("/usr/bin"));
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", python_folder.display());
    let volumes: BTreeMap<String, String> = volume_folders(shared, definition)
        .map(|(mount_path, host)| (mount_path, host.to_string_lossy().into_owned()))
        .collect();
    let volumes = serde_json::Value::from_iter(volumes).to_string();
    let environment = shared.read(|state| state.app(&definition.app_id).map(|a| a.environment.clone()).ok());
    let variables: [(&str, OsString); 14] = [
        ("PATH", path.into()),
        ("HOME", folder.join("home").into()),
        ("TMPDIR", folder.join("tmp").into()),
        ("LANG", "C.UTF-8".into()),
        ("PYTHONPATH", tree.join(code::HOME).into()),
        ("PYTHONUNBUFFERED", "1".into()),
        ("MODAL_SERVER_URL", (&shared.server_url).into()),
        ("MODAL_IS_REMOTE", "1".into()),
        (ARGUMENTS_VARIABLE, folder.join("arguments").into()),
        ("MODAL_OVERRIDE_HEADERS", format!("{TASK_HEADER}:{token}").into()),
        ("MODAL_TASK_ID", task_id.into()),
        ("MODAL_IMAGE_ID", (&definition.function.image_id).into()),
        ("MODAL_ENVIRONMENT", environment.unwrap_or_default().into()),
        (VOLUMES_VARIABLE, volumes.into()),
    ];
    variables.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

/// Where the function's Volumes are mounted on Modal, and where they are here.
fn volume_folders(shared: &Shared, definition: &Definition) -> impl Iterator<Item = (String, PathBuf)> {
    definition.function.volume_mounts.iter().map(|mount| {
        let folder = shared.volumes.folder(&mount.volume_id);
        let folder = mount.sub_path.as_ref().map_or(folder.clone(), |sub| folder.join(sub.trim_start_matches('/')));
        (mount.mount_path.clone(), folder)
    })
}
