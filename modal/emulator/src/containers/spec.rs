//! The description of a container that the runner reads, and its environment variables.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use modal_proto::function::DefinitionType;
use serde::Serialize;

use super::{output, private};
use crate::{
    images::{self, Environment},
    options::Options,
    process::ARGUMENTS_VARIABLE,
    shared::Shared,
    state::{Definition, State},
    views::Attachment,
};

/// The header with a container's token. The SDK adds it to every request, because `MODAL_OVERRIDE_HEADERS` asks for it.
pub const TASK_HEADER: &str = "x-modal-local-task";

/// Environment variables.
pub type Variables = BTreeMap<String, String>;

/// The input of `runner.py`, which documents the fields.
#[derive(Debug, Clone, Serialize)]
pub struct Spec {
    pub tree: PathBuf,
    pub volumes: BTreeMap<String, Attachment>,
    pub directory: Option<PathBuf>,
    pub root: PathBuf,
    pub preload: Vec<String>,
    pub web_server: bool,
    pub skipped: Vec<String>,
    pub private: BTreeMap<String, Vec<PathBuf>>,
    pub folder: PathBuf,
    pub shown: Vec<PathBuf>,
    pub variables: Variables,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

impl Spec {
    /// The description of a container of a definition, whose private folder is `folder`. `variables` are those that do
    /// not depend on the folder.
    pub fn new(
        options: &Options,
        definition: &Definition,
        image: &Environment,
        tree: PathBuf,
        volumes: Vec<Attachment>,
        mut variables: Variables,
        folder: &Path,
    ) -> Self {
        variables.extend(folder_variables(folder));
        let function = &definition.function;
        // A snapshot has the imported module. Without snapshots, each container imports the function itself.
        let from_file = function.definition_type() == DefinitionType::File && !function.module_name.is_empty();
        let preloads = function.checkpointing_enabled && from_file;
        let [stdout, stderr] = output::paths(folder);
        Self {
            tree,
            directory: image.folder.as_ref().map(PathBuf::from),
            root: folder.join("root"),
            preload: preloads.then(|| function.module_name.clone()).into_iter().collect(),
            web_server: definition.has_own_port(),
            skipped: image.skipped.clone(),
            private: private::folders(options, image.folder.as_deref(), &image.homes, |path| {
                volumes.iter().any(|volume| volume.path == path)
            }),
            volumes: volumes.into_iter().map(|volume| (volume.path.clone(), volume)).collect(),
            folder: folder.to_owned(),
            shown: options.shown(),
            variables,
            stdout,
            stderr,
        }
    }
}

/// Where the SDK's description of a container is, in the container's folder.
pub fn arguments_path(folder: &Path) -> PathBuf {
    folder.join("arguments")
}

/// The variables of every container of a definition: those of the server's environment about package indexes, then
/// those of the image, then those of Secrets, as on Modal, then the container's own; later ones win. Nothing else of
/// the server's environment: it may hold credentials, and variables of the tool that started the server.
pub fn variables(shared: &Shared, definition: &Definition, image: &Environment) -> Variables {
    let mut variables = images::network_variables();
    variables.extend(image.variables.clone());
    variables.extend(shared.read(|state| secrets(state, definition)));
    let environment = shared.read(|state| state.app(&definition.app_id).map(|a| a.environment.clone()).ok());
    let own = [
        ("PATH", image.search_path()),
        ("LANG", "C.UTF-8".to_owned()),
        ("PYTHONUNBUFFERED", "1".to_owned()),
        ("MODAL_SERVER_URL", shared.server_url.clone()),
        ("MODAL_IS_REMOTE", "1".to_owned()),
        ("MODAL_IMAGE_ID", definition.function.image_id.clone()),
        ("MODAL_ENVIRONMENT", environment.unwrap_or_default()),
    ];
    variables.extend(own.map(|(name, value)| (name.to_owned(), value)));
    bypass_proxies(&mut variables);
    variables
}

/// Excludes this machine from proxies, if there are any: no proxy can reach its ports.
fn bypass_proxies(variables: &mut Variables) {
    const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
    let is_proxy = |name: &String| matches!(&*name.to_ascii_uppercase(), "HTTP_PROXY" | "HTTPS_PROXY" | "ALL_PROXY");
    if !variables.keys().any(is_proxy) {
        return;
    }
    // Programs differ in which of the two they read, and in which of them wins.
    let found = variables.get("no_proxy").or_else(|| variables.get("NO_PROXY")).cloned().unwrap_or_default();
    if found.trim() == "*" {
        // It excludes all hosts. Combined with others, programs take it for a host name.
        return;
    }
    let known: Vec<&str> = found.split(',').map(str::trim).filter(|host| !host.is_empty()).collect();
    let missing = LOOPBACK.into_iter().filter(|host| !known.contains(host));
    let all = known.iter().copied().chain(missing).collect::<Vec<_>>().join(",");
    for name in ["no_proxy", "NO_PROXY"] {
        variables.insert(name.to_owned(), all.clone());
    }
}

/// Directs a container's files outside of Volumes into its private folder.
fn folder_variables(folder: &Path) -> Variables {
    let own =
        [("HOME", folder.join("home")), ("TMPDIR", folder.join("tmp")), (ARGUMENTS_VARIABLE, arguments_path(folder))];
    own.map(|(name, path)| (name.to_owned(), path.to_string_lossy().into_owned())).into()
}

/// The variables of the container of one task only.
pub fn task_variables(task_id: &str, token: &str) -> Variables {
    let own = [("MODAL_TASK_ID", task_id.to_owned()), ("MODAL_OVERRIDE_HEADERS", format!("{TASK_HEADER}:{token}"))];
    own.map(|(name, value)| (name.to_owned(), value)).into()
}

/// The variables of the function's Secrets; the last Secret wins, as on Modal.
fn secrets(state: &State, definition: &Definition) -> Variables {
    let secrets = definition.function.secret_ids.iter().filter_map(|id| state.secrets.get(id));
    secrets.flat_map(|secret| secret.variables.clone()).collect()
}
