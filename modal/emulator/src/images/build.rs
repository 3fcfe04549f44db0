//! Carrying out a plan: steps in the order of the recipe, in a folder of their own.

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
    recipe::{Plan, Step, Surroundings, What},
    uv::{self, Uv},
    venv::Venv,
};
use crate::{
    error::Error,
    files::{Files as Store, blocking},
};

/// Imports all that a container needs of the SDK.
const CHECK: &str = "import modal._container_entrypoint";

/// A build under way.
pub struct Builder<'a> {
    pub log: &'a Log,
    pub store: &'a Store,
    pub uv: Uv,
    /// The interpreter of the server, which has the SDK.
    pub base: &'a Interpreter,
    /// The interpreter that the recipe leads to.
    pub interpreter: &'a Interpreter,
    pub folder: &'a Path,
}

impl Builder<'_> {
    /// Carries out all steps. Returns the environment, if the interpreter alone would not do.
    pub async fn carry_out(&self, plan: &Plan) -> Result<Option<Venv>, BuildError> {
        for name in ["home", "tmp", "root"] {
            fs::create_dir_all(self.folder.join(name)).map_err(prepare_failed())?;
        }
        let venv = self.create_venv().await?;
        let mut placed = Arc::default();
        for step in &plan.steps {
            self.place_new_files(&step.surroundings.files, &placed).await?;
            placed = step.surroundings.files.clone();
            self.carry_out_step(step, &venv).await?;
        }
        if self.is_base() && venv.has_own("modal") {
            self.log.say("modal is not installed: containers use the one of the interpreter");
            self.uv(&["pip", "uninstall", "modal", "--python"], [venv.python().into()], &step_variables(None), &venv)
                .await?;
        }
        let settled = venv.clone();
        let installed = blocking(move || settled.settle().map_err(prepare_failed())).await?;
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
            blocking(move || venv.show(&base).map_err(prepare_failed())).await?;
        } else {
            let sdk = self.base.distributions().into_iter().find(|found| found.name == "modal");
            let sdk = sdk.map_or("modal".to_owned(), |found| format!("modal=={}", found.version));
            self.log.say(&format!("{sdk} is installed for Python {}", self.interpreter.version));
            let arguments = ["pip", "install", &sdk, "--python"];
            self.uv(&arguments, [venv.python().into()], &BTreeMap::new(), &venv).await?;
        }
        Ok(venv)
    }

    /// Puts files into the build's tree that were not there at the last step; commands may have changed those.
    async fn place_new_files(&self, files: &Arc<Files>, placed: &Arc<Files>) -> Result<(), BuildError> {
        if Arc::ptr_eq(files, placed) {
            return Ok(());
        }
        let (files, placed, store, root) = (files.clone(), placed.clone(), self.store.clone(), self.root());
        blocking(move || place_files(&files, &placed, &store, &root).map_err(prepare_failed())).await?;
        Ok(())
    }

    async fn carry_out_step(&self, step: &Step, venv: &Venv) -> Result<(), BuildError> {
        self.log.hide(step.surroundings.secrets.values());
        self.log.say(&format!("{STEP}RUN {}", step.text));
        let variables = step_variables(Some(&step.surroundings));
        match &step.what {
            What::Install(install) => self.install(install, &step.surroundings, variables, venv).await,
            What::Sync(arguments) => {
                let project = self.place("/.uv", &step.surroundings).to_string();
                // What was installed before stays, as on Modal, where it is in another environment.
                let own = [format!("--project={project}"), "--inexact".to_owned(), "--active".to_owned()];
                let given = arguments.iter().filter(|argument| !is_decided_here(argument)).cloned();
                self.uv(&["sync"], given.chain(own).map(OsString::from), &variables, venv).await
            }
            What::Poetry(arguments) => {
                let mut command = Command::new(venv.folder.join("bin").join("poetry"));
                command.arg("install").args(arguments).env("POETRY_VIRTUALENVS_CREATE", "false");
                self.run(command, &step.surroundings, &variables, venv).await
            }
            // They are skipped or refused before a build.
            What::Impossible(why) => Err(BuildError(format!("{}\n{why}", step.text))),
            What::Run(words) => {
                if is_apt(&step.text) && !can_apt() {
                    self.log.say("warning: skipped, as apt-get is not here or this is not the root user");
                    return Ok(());
                }
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]);
                let mut all = step.surroundings.variables.clone();
                all.extend(variables);
                self.run(command, &step.surroundings, &all, venv).await
            }
        }
    }

    async fn install(
        &self,
        install: &Install,
        surroundings: &Surroundings,
        mut variables: BTreeMap<String, String>,
        venv: &Venv,
    ) -> Result<(), BuildError> {
        let place = |path: &str| self.place(path, surroundings);
        let with_secrets = |url: &String| {
            surroundings
                .secrets
                .iter()
                .fold(url.clone(), |url, (name, value)| url.replace(&format!("${{{name}}}"), value))
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
        self.run(command, &Surroundings::default(), variables, venv).await
    }

    /// Runs a command in the build's file tree, with the environment's programs first.
    async fn run(
        &self,
        mut command: Command,
        surroundings: &Surroundings,
        variables: &BTreeMap<String, String>,
        venv: &Venv,
    ) -> Result<(), BuildError> {
        let folder = self.root().join(surroundings.folder.trim_start_matches('/'));
        fs::create_dir_all(&folder).map_err(prepare_failed())?;
        let mut base = uv::base_variables(self.folder);
        if variables.contains_key("UV_DEFAULT_INDEX") || variables.contains_key("UV_INDEX_URL") {
            // The recipe's index replaces the one this machine is set up with.
            base.retain(|name, _| !matches!(name.as_str(), "UV_DEFAULT_INDEX" | "UV_INDEX_URL"));
        }
        let given = variables.get("PATH").cloned().unwrap_or_else(|| std::env::var("PATH").unwrap_or_default());
        let bins = [venv.folder.join("bin"), self.base.python.parent().map(Path::to_owned).unwrap_or_default()];
        let path = format!("{}:{}:{given}", bins[0].display(), bins[1].display());
        // Own ones come last, as a recipe must not change where the build keeps its things.
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

    /// Where a path that a command names is: in the image if it has it, on this machine otherwise.
    fn place(&self, path: &str, surroundings: &Surroundings) -> String {
        let inside = super::copy::absolute(&surroundings.folder, path);
        let below_root = self.root().join(inside.trim_start_matches('/'));
        if surroundings.files.has(&inside) || below_root.exists() {
            return below_root.to_string_lossy().into_owned();
        }
        path.to_owned()
    }

    /// Makes sure that containers can begin.
    async fn check(&self, venv: &Venv) -> Result<(), BuildError> {
        let mut command = Command::new(venv.python());
        command.args(["-c", CHECK]);
        let failed = |error: BuildError| {
            BuildError(format!("with its packages, the image cannot import the modal SDK (`{CHECK}`): {error}"))
        };
        self.run(command, &Surroundings::default(), &BTreeMap::new(), venv).await.map_err(failed)
    }
}

fn prepare_failed() -> impl FnOnce(io::Error) -> Error {
    Error::io("prepare", "an image's folder")
}

/// How much of the log goes into an error message.
const LAST_LINES: usize = 40;

fn step_variables(surroundings: Option<&Surroundings>) -> BTreeMap<String, String> {
    let Some(surroundings) = surroundings else { return BTreeMap::new() };
    let steering = surroundings.variables.iter().filter(|(name, _)| uv::steers(name));
    let steering = steering.map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut variables = uv::with_names_of_uv(&steering);
    variables.extend(uv::with_names_of_uv(&surroundings.secrets));
    variables
}

/// Options of `uv sync` that are given here in another way, or make no difference.
fn is_decided_here(argument: &str) -> bool {
    argument.starts_with("--project=") || matches!(argument, "--compile-bytecode" | "--no-cache" | "--active")
}

fn is_apt(text: &str) -> bool {
    text.starts_with("apt-get ") || text.starts_with("apt ")
}

fn can_apt() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/usr/bin/apt-get").is_file()
}

/// Puts files of an image below a folder, apart from those that are there already.
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
