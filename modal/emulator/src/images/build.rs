//! Builds: the steps of a plan in the order of the recipe, in a folder of their own.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::process::Command;

use super::{
    BuildError,
    copy::{Content, Files},
    install::Install,
    interpreter::Interpreter,
    log::{Log, STEP},
    recipe::{Plan, Step, StepContext, StepKind},
    uv::{self, Uv},
    venv::Venv,
};
use crate::{
    error::Error,
    files::{Files as Store, blocking},
};

/// Imports everything that a container needs of the SDK.
const CHECK: &str = "import modal._container_entrypoint";

/// A running build.
pub struct Builder<'a> {
    pub log: &'a Log,
    pub store: &'a Store,
    pub uv: Uv,
    /// The interpreter of the server, which has the SDK.
    pub base: &'a Interpreter,
    /// The interpreter that the recipe asks for.
    pub interpreter: &'a Interpreter,
    pub folder: &'a Path,
}

impl Builder<'_> {
    /// Runs all steps. Returns the environment, if the interpreter alone does not suffice.
    pub async fn run_plan(&self, plan: &Plan) -> Result<Option<Venv>, BuildError> {
        for name in ["home", "tmp", "root"] {
            fs::create_dir_all(self.folder.join(name)).map_err(prepare_failed())?;
        }
        let venv = self.create_venv().await?;
        let mut placed = Arc::default();
        for step in &plan.steps {
            self.place_new_files(&step.context.files, &placed).await?;
            placed = step.context.files.clone();
            self.run_step(step, &venv).await?;
        }
        if self.is_base() && venv.has_own("modal") {
            self.log.write("modal is not installed: containers use the one of the interpreter");
            self.uv(&["pip", "uninstall", "modal", "--python"], [venv.python().into()], &step_variables(None), &venv)
                .await?;
        }
        let unlinked = venv.clone();
        let installed = blocking(move || unlinked.remove_copies().map_err(prepare_failed())).await?;
        let needed = installed || !self.is_base() || plan.keeps_root();
        if needed {
            self.check(&venv).await?;
        } else {
            remove(&venv.folder);
        }
        for name in ["home", "tmp"].into_iter().chain((!plan.keeps_root()).then_some("root")) {
            remove(&self.folder.join(name));
        }
        Ok(needed.then_some(venv))
    }

    fn is_base(&self) -> bool {
        self.base.python == self.interpreter.python
    }

    async fn create_venv(&self) -> Result<Venv, BuildError> {
        let venv = Venv::new(self.folder.join("venv"), self.interpreter);
        let arguments = ["venv", "--quiet", "--no-project", "--clear", "--python"];
        let paths = [self.interpreter.python.clone().into(), venv.folder.clone().into()];
        self.uv(&arguments, paths, &BTreeMap::new(), &venv).await?;
        if self.is_base() {
            let (venv, base) = (venv.clone(), self.base.clone());
            blocking(move || venv.link_packages(&base).map_err(prepare_failed())).await?;
        } else {
            let sdk = self.base.distributions().into_iter().find(|found| found.name == "modal");
            let sdk = sdk.map_or("modal".to_owned(), |found| format!("modal=={}", found.version));
            self.log.write(&format!("{sdk} is installed for Python {}", self.interpreter.version));
            let arguments = ["pip", "install", &sdk, "--python"];
            self.uv(&arguments, [venv.python().into()], &BTreeMap::new(), &venv).await?;
        }
        Ok(venv)
    }

    /// Puts the files that the last step did not have into the build's tree. Commands may have changed the others.
    async fn place_new_files(&self, files: &Arc<Files>, placed: &Arc<Files>) -> Result<(), BuildError> {
        if Arc::ptr_eq(files, placed) {
            return Ok(());
        }
        let (files, placed, store, root) = (files.clone(), placed.clone(), self.store.clone(), self.root());
        blocking(move || place_files(&files, &placed, &store, &root).map_err(prepare_failed())).await?;
        Ok(())
    }

    async fn run_step(&self, step: &Step, venv: &Venv) -> Result<(), BuildError> {
        self.log.hide(step.context.secrets.values());
        self.log.write(&format!("{STEP}RUN {}", step.text));
        let variables = step_variables(Some(&step.context));
        match &step.kind {
            StepKind::Install(install) => self.install(install, &step.context, variables, venv).await,
            StepKind::Sync(arguments) => {
                let project = self.place("/.uv", &step.context).to_string();
                // Earlier packages stay, as on Modal, where they are in another environment.
                let own = [format!("--project={project}"), "--inexact".to_owned(), "--active".to_owned()];
                let given = arguments.iter().filter(|argument| !is_decided_here(argument)).cloned();
                self.uv(&["sync"], given.chain(own).map(OsString::from), &variables, venv).await
            }
            StepKind::Poetry(arguments) => {
                let mut command = Command::new(venv.folder.join("bin").join("poetry"));
                command.arg("install").args(arguments).env("POETRY_VIRTUALENVS_CREATE", "false");
                self.run(command, &step.context, &variables, venv).await
            }
            // They are skipped or refused before a build.
            StepKind::Unsupported(why) => Err(BuildError(format!("{}\n{why}", step.text))),
            StepKind::Run(words) => {
                if is_apt(&step.text) && !can_apt() {
                    self.log.write("warning: skipped, as apt-get is not here or this is not the root user");
                    return Ok(());
                }
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]);
                let mut all = step.context.variables.clone();
                all.extend(variables);
                self.run(command, &step.context, &all, venv).await
            }
        }
    }

    async fn install(
        &self,
        install: &Install,
        context: &StepContext,
        mut variables: BTreeMap<String, String>,
        venv: &Venv,
    ) -> Result<(), BuildError> {
        let place = |path: &str| self.place(path, context);
        let with_secrets = |url: &String| {
            context.secrets.iter().fold(url.clone(), |url, (name, value)| url.replace(&format!("${{{name}}}"), value))
        };
        if let Some(url) = &install.default_index {
            variables.remove("UV_INDEX_URL");
            variables.insert("UV_DEFAULT_INDEX".to_owned(), with_secrets(url));
        }
        for (name, urls) in [("UV_EXTRA_INDEX_URL", &install.extra_indexes), ("UV_INDEX", &install.indexes)] {
            if !urls.is_empty() {
                variables.insert(name.to_owned(), urls.iter().map(with_secrets).collect::<Vec<_>>().join(" "));
            }
        }
        let requirements = self.folder.join("tmp").join("requirements.txt");
        fs::write(&requirements, install.requirements_file(place)).map_err(prepare_failed())?;
        let mut arguments: Vec<OsString> = vec![venv.python().into()];
        arguments.extend(install.options.iter().map(|option| option.render(place).into()));
        if !install.lines.is_empty() {
            arguments.extend(["--requirements".into(), requirements.into()]);
        }
        self.uv(&["pip", "install", "--python"], arguments, &variables, venv).await
    }

    async fn uv(
        &self,
        first: &[&str],
        more: impl IntoIterator<Item = OsString>,
        variables: &BTreeMap<String, String>,
        venv: &Venv,
    ) -> Result<(), BuildError> {
        let mut command = self.uv.command(first);
        command.args(more);
        self.run(command, &StepContext::default(), variables, venv).await
    }

    /// Runs a command in the build's file tree, with the environment's programs first.
    async fn run(
        &self,
        mut command: Command,
        context: &StepContext,
        variables: &BTreeMap<String, String>,
        venv: &Venv,
    ) -> Result<(), BuildError> {
        let folder = self.root().join(context.folder.trim_start_matches('/'));
        fs::create_dir_all(&folder).map_err(prepare_failed())?;
        let mut base = uv::base_variables(self.folder);
        if variables.contains_key("UV_DEFAULT_INDEX") || variables.contains_key("UV_INDEX_URL") {
            // The recipe's index replaces the one of this machine.
            base.retain(|name, _| !matches!(name.as_str(), "UV_DEFAULT_INDEX" | "UV_INDEX_URL"));
        }
        let given = variables.get("PATH").cloned().unwrap_or_else(|| std::env::var("PATH").unwrap_or_default());
        let bins = [venv.folder.join("bin"), self.base.python.parent().map(Path::to_owned).unwrap_or_default()];
        let path = format!("{}:{}:{given}", bins[0].display(), bins[1].display());
        // Set last: a recipe must not change where the build keeps its files.
        let kept =
            base.extract_if(.., |name, _| matches!(name.as_str(), "HOME" | "TMPDIR") || name.starts_with("MODAL_"));
        let kept: Vec<(String, OsString)> = kept.collect();
        command.env_clear().envs(base).envs(variables).envs(kept).env("PATH", path);
        command.env("VIRTUAL_ENV", &venv.folder).env("UV_PROJECT_ENVIRONMENT", &venv.folder).current_dir(folder);
        if uv::run(command, self.folder, self.log).await? {
            return Ok(());
        }
        Err(BuildError(format!("a step of the image failed:\n{}", self.log.tail(LAST_LINES))))
    }

    fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// The path that a command means: in the image if it exists there, otherwise on this machine.
    fn place(&self, path: &str, context: &StepContext) -> String {
        let inside = super::copy::absolute(&context.folder, path);
        let below_root = self.root().join(inside.trim_start_matches('/'));
        if context.files.has(&inside) || below_root.exists() {
            return below_root.to_string_lossy().into_owned();
        }
        path.to_owned()
    }

    /// Checks that containers can start.
    async fn check(&self, venv: &Venv) -> Result<(), BuildError> {
        let mut command = Command::new(venv.python());
        command.args(["-c", CHECK]);
        let failed = |error: BuildError| {
            BuildError(format!("with its packages, the image cannot import the modal SDK (`{CHECK}`): {error}"))
        };
        self.run(command, &StepContext::default(), &BTreeMap::new(), venv).await.map_err(failed)
    }
}

fn prepare_failed() -> impl FnOnce(io::Error) -> Error {
    Error::io("prepare", "an image's folder")
}

/// How much of the log goes into an error message.
const LAST_LINES: usize = 40;

fn step_variables(context: Option<&StepContext>) -> BTreeMap<String, String> {
    let Some(context) = context else { return BTreeMap::new() };
    let steering = context.variables.iter().filter(|(name, _)| uv::is_installer_setting(name));
    let steering = steering.map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut variables = uv::with_uv_names(&steering);
    variables.extend(uv::with_uv_names(&context.secrets));
    variables
}

/// Options of `uv sync` that are set here in another way, or have no effect.
fn is_decided_here(argument: &str) -> bool {
    argument.starts_with("--project=") || matches!(argument, "--compile-bytecode" | "--no-cache" | "--active")
}

fn is_apt(text: &str) -> bool {
    text.starts_with("apt-get ") || text.starts_with("apt ")
}

fn can_apt() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/usr/bin/apt-get").is_file()
}

/// Puts files of an image into a folder, except those that are there already.
pub fn place_files(files: &Files, placed: &Files, store: &Store, root: &Path) -> io::Result<()> {
    for (path, file) in files.0.iter().filter(|(path, file)| placed.get(path) != Some(file)) {
        let target = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap_or(root))?;
        match &file.content {
            Content::Inline(data) => fs::write(&target, data)?,
            Content::Stored(sha256_hex) => {
                let source = store.path(sha256_hex).map_err(io::Error::other)?;
                // A copy: commands may write to the file, and the store's must not change.
                fs::copy(source, &target)?;
            }
        }
        fs::set_permissions(&target, fs::Permissions::from_mode(file.mode.unwrap_or(0o644) & 0o777 | 0o600))?;
    }
    Ok(())
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "could not be removed");
    }
}
