//! Images: from the recipe that the SDK sends to the interpreter, variables and files that a container begins with.
//!
//! A recipe is a chain of layers of Dockerfile commands. [`recipe`] works out on paper what they come to (`words` and
//! `dockerfile` read them, `install` knows the commands that install packages, `copy` the files), [`build`] carries the
//! steps out with `uv` in a `venv`. What several images have in common, and what the interpreter of the server has
//! already, is not installed again: an environment is named by what leads to it.

mod build;
mod copy;
mod dockerfile;
mod function;
mod install;
mod interpreter;
mod layers;
mod log;
mod recipe;
mod uv;
mod venv;
mod words;

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::SystemTime,
};

use self::{
    build::Builder,
    interpreter::Interpreter,
    recipe::{Origin, Plan, SYSTEM_PATH},
    uv::Uv,
};
pub use self::{
    build::place_files,
    copy::Files,
    log::{Line, Log},
};
use crate::{
    containers::{explain, kill_left_overs},
    error::Error,
    files::{blocking, write_whole},
    ids::new_id,
    shared::Shared,
    state::Built,
};

/// The file that tells that an environment is complete, and what it is.
pub const COMPLETE: &str = "complete.json";
/// Most builds whose logs are remembered.
const REMEMBERED_BUILDS: usize = 64;

/// Why an image cannot be had. The text is for the user, and holds no secrets.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct BuildError(pub String);

impl From<Error> for BuildError {
    fn from(error: Error) -> Self {
        Self(explain(&error))
    }
}

/// What a container of an image begins with.
#[derive(Debug)]
pub struct Environment {
    pub python: PathBuf,
    /// Folders with programs, the first one first.
    pub bins: Vec<PathBuf>,
    pub variables: BTreeMap<String, String>,
    /// The working folder that the recipe set.
    pub folder: Option<String>,
    pub files: Arc<Files>,
    /// A tree of files that commands of the recipe made.
    pub root: Option<PathBuf>,
}

impl Environment {
    /// Where programs are looked for: what is installed beside the interpreter comes first.
    pub fn search_path(&self) -> String {
        let bins = self.bins.iter().map(|bin| bin.to_string_lossy().into_owned());
        let path = self.variables.get("PATH").map_or(SYSTEM_PATH, String::as_str);
        bins.chain([path.to_owned()]).collect::<Vec<_>>().join(":")
    }
}

/// The images that are being built, and the ways to those that are.
#[derive(Default)]
pub struct Images {
    builds: Mutex<Builds>,
    /// One build at a time for each environment.
    locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// What interpreters said about themselves, as long as they are the same file.
    interpreters: Mutex<HashMap<PathBuf, (SystemTime, Interpreter)>>,
}

#[derive(Default)]
struct Builds {
    by_image: HashMap<String, Arc<Log>>,
    oldest_first: Vec<String>,
}

/// A recipe with the interpreter it leads to.
struct Prepared {
    plan: Plan,
    base: Interpreter,
    interpreter: Interpreter,
    key: String,
    salt: String,
}

impl Images {
    /// The log of the build of an image that is under way or has ended lately.
    pub fn log(&self, image_id: &str) -> Option<Arc<Log>> {
        self.builds.lock().unwrap_or_else(PoisonError::into_inner).by_image.get(image_id).cloned()
    }

    /// Begins a build, unless one is under way; returns its log, and whether it is new.
    fn begin(&self, image_id: &str) -> (Arc<Log>, bool) {
        let mut builds = self.builds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = builds.by_image.get(image_id).filter(|log| log.outcome().is_none()) {
            return (log.clone(), false);
        }
        let log = Arc::new(Log::default());
        builds.by_image.insert(image_id.to_owned(), log.clone());
        builds.oldest_first.retain(|other| other != image_id);
        builds.oldest_first.push(image_id.to_owned());
        if builds.oldest_first.len() > REMEMBERED_BUILDS
            && let Some(ended) = builds.oldest_first.iter().position(|id| builds.by_image[id].outcome().is_some())
        {
            let id = builds.oldest_first.remove(ended);
            builds.by_image.remove(&id);
        }
        (log, true)
    }

    fn lock_of(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        locks.insert(key.to_owned(), Arc::downgrade(&lock));
        lock
    }

    async fn inspect(&self, python: &Path) -> Result<Interpreter, BuildError> {
        // A link's own time: a virtual environment that was made anew has new links.
        let modified = fs::symlink_metadata(python).and_then(|meta| meta.modified()).ok();
        let known = self.interpreters.lock().unwrap_or_else(PoisonError::into_inner).get(python).cloned();
        if let Some((at, interpreter)) = known
            && Some(at) == modified
        {
            return Ok(interpreter);
        }
        let interpreter = Interpreter::inspect(python).await?;
        if let Some(at) = modified {
            let mut interpreters = self.interpreters.lock().unwrap_or_else(PoisonError::into_inner);
            interpreters.insert(python.to_owned(), (at, interpreter.clone()));
        }
        Ok(interpreter)
    }
}

/// What an image leads to if nothing has to be built for it; otherwise its build begins, and `None` is the answer.
/// `force`: it is built whatever there is.
pub async fn get_or_build(shared: &Arc<Shared>, image_id: &str, force: bool) -> Result<Option<Built>, Error> {
    let salt = force.then(|| new_id("build"));
    if let Ok(prepared) = prepare(shared, image_id, salt.clone()).await
        && let Some(built) = at_hand(shared, &prepared)
        && !force
        && has_run(shared, image_id, &built)
    {
        shared.change(|state, _| state.image_built(image_id, built.clone())).await?;
        return Ok(Some(built));
    }
    follow_or_build(shared, image_id, salt);
    Ok(None)
}

/// The build of an image that is not built yet.
pub fn follow_or_build(shared: &Arc<Shared>, image_id: &str, salt: Option<String>) -> Arc<Log> {
    let (log, is_new) = shared.images.begin(image_id);
    if is_new {
        let (shared, image_id, log) = (shared.clone(), image_id.to_owned(), log.clone());
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = build(&shared, &image_id, salt, &log) => outcome,
                () = shared.hang_up.cancelled() => Err(BuildError("the server is shutting down".to_owned())),
            };
            let outcome = outcome.map_err(|BuildError(text)| BuildError(log.redacted(&text)));
            log.finish(outcome);
        });
    }
    log
}

/// What a container of an image begins with; the image is built if it is not (any more).
pub async fn environment(shared: &Arc<Shared>, image_id: &str) -> Result<Environment, Error> {
    let built = shared.read(|state| state.images.get(image_id).and_then(|image| image.built.clone()));
    let built = match built {
        Some(built) if built.python.as_ref().is_none_or(|python| python.is_file()) => built,
        _ => {
            let log = follow_or_build(shared, image_id, None);
            let mut changes = log.changes();
            loop {
                changes.mark_unchanged();
                if let Some(outcome) = log.outcome() {
                    break outcome.map_err(|error| Error::invalid("the image", error.to_string()))?;
                }
                // The sender lives as long as the log.
                let _ = changes.changed().await;
            }
        }
    };
    let layers = shared.read(|state| layers::of(state, image_id))?;
    let plan = Plan::of(&layers).map_err(|error| Error::invalid("the image", error.to_string()))?;
    let root = shared.options.images_folder().join(&built.key).join("root");
    let bin = |python: &Path| python.parent().map(Path::to_owned);
    let python = built.python.unwrap_or_else(|| shared.options.python.clone());
    let mut bins: Vec<PathBuf> = [bin(&python), bin(&shared.options.python)].into_iter().flatten().collect();
    bins.dedup();
    Ok(Environment {
        bins,
        python,
        variables: plan.variables,
        folder: plan.folder,
        files: plan.files,
        root: root.is_dir().then_some(root),
    })
}

/// The working folder that an image's recipe sets.
pub fn working_folder(shared: &Shared, image_id: &str) -> Option<String> {
    let layers = shared.read(|state| layers::of(state, image_id)).ok()?;
    Plan::of(&layers).ok()?.folder
}

async fn prepare(shared: &Arc<Shared>, image_id: &str, salt: Option<String>) -> Result<Prepared, BuildError> {
    let mut layers = shared.read(|state| layers::of(state, image_id))?;
    if let (Some(salt), Some(last)) = (salt, layers.last_mut()) {
        last.salt = salt;
    }
    let plan = Plan::of(&layers)?;
    let unsafe_allowed = shared.options.unsafe_run_commands;
    if let Some(step) = plan.first_command().filter(|_| !unsafe_allowed) {
        return Err(refused(&format!("RUN {}", step.text), "only installations of Python packages are carried out"));
    }
    let base = shared.images.inspect(&shared.options.python).await?;
    let wanted = match &plan.origin {
        Origin::Foreign(name) if !unsafe_allowed => {
            return Err(refused(&format!("FROM {name}"), "only images of Python can be stood in for (python:3.X…)"));
        }
        Origin::Python(Some(version)) if !base.is_of(version) => Some(version.clone()),
        Origin::Foreign(_) | Origin::Python(_) => None,
    };
    let interpreter = match wanted {
        None => base.clone(),
        Some(version) => other_version(shared, &version, &base).await?,
    };
    let key = plan.key(&format!("{}\0{}", base.identity(), interpreter.identity()));
    let salt = layers.pop().map(|layer| layer.salt).unwrap_or_default();
    Ok(Prepared { plan, base, interpreter, key, salt })
}

fn refused(what: &str, why: &str) -> BuildError {
    BuildError(format!(
        "{what}\nis not done by Local Modal: {why}, as there are no containers' walls here and commands would run on \
         this machine as you. To allow that, start the server with: modal-local serve --unsafe-run-commands"
    ))
}

async fn other_version(shared: &Arc<Shared>, version: &str, base: &Interpreter) -> Result<Interpreter, BuildError> {
    let mut parts = version.split('.');
    let series = [parts.next(), parts.next()].into_iter().flatten().collect::<Vec<_>>().join(".");
    let uv = Uv::find(&base.python).await?;
    match uv.find_python(&series, &shared.options.images_folder()).await {
        Some(python) => shared.images.inspect(&python).await,
        None => Err(BuildError(format!(
            "this image wants Python {series}, which is not installed on this machine; the server's interpreter {} is \
             Python {}. Ask for that version (python_version=\"{}\"), or install Python {series} where uv finds it",
            base.python.display(),
            base.version,
            base.series(),
        ))),
    }
}

/// What a recipe leads to, if it needs no build.
fn at_hand(shared: &Shared, prepared: &Prepared) -> Option<Built> {
    let Prepared { plan, base, interpreter, key, salt } = prepared;
    let built = |python: Option<PathBuf>| Built {
        key: key.clone(),
        salt: salt.clone(),
        python,
        version: interpreter.version.clone(),
    };
    if interpreter.python == base.python && has_all(base, plan) {
        return Some(built(None));
    }
    let marker = shared.options.images_folder().join(key).join(COMPLETE);
    let python: Option<PathBuf> = serde_json::from_slice(&fs::read(&marker).ok()?).ok()?;
    // So that it counts as used.
    let touched = fs::File::options().append(true).open(&marker).and_then(|file| file.set_modified(SystemTime::now()));
    if let Err(error) = touched {
        tracing::debug!(%error, "the time of an environment could not be set");
    }
    python.as_ref().is_none_or(|python| python.is_file()).then(|| built(python))
}

/// Whether the function that is the last step of an image, if there is one, has run for what the image leads to.
fn has_run(shared: &Shared, image_id: &str, built: &Built) -> bool {
    shared.read(|state| {
        let Some(image) = state.images.get(image_id) else { return false };
        let has_function = image.decoded().is_ok_and(|recipe| recipe.build_function.is_some());
        !has_function || image.built.as_ref().is_some_and(|earlier| earlier.key == built.key)
    })
}

/// Whether it takes no resolver to see that an interpreter has all that a recipe asks for.
fn has_all(base: &Interpreter, plan: &Plan) -> bool {
    let Some(wanted) = plan.plain_requirements() else { return false };
    let installed: HashMap<String, String> = if wanted.is_empty() {
        HashMap::new()
    } else {
        base.distributions().into_iter().map(|d| (d.name, d.version)).collect()
    };
    wanted.iter().all(|(name, version)| {
        installed.get(name).is_some_and(|found| version.as_ref().is_none_or(|version| version == found))
    })
}

/// Builds an image, or finds that another build has led to the same.
async fn build(shared: &Arc<Shared>, image_id: &str, salt: Option<String>, log: &Log) -> Result<Built, BuildError> {
    let prepared = prepare(shared, image_id, salt).await.inspect_err(|error| log.say(&error.0))?;
    for note in &prepared.plan.notes {
        log.say(&format!("note: {note}"));
    }
    let lock = shared.images.lock_of(&prepared.key);
    let one_at_a_time = lock.lock().await;
    let built = match at_hand(shared, &prepared) {
        Some(built) => built,
        None => {
            let folder = shared.options.images_folder().join(&prepared.key);
            let python = install(shared, &prepared, &folder, log).await;
            if python.is_err() {
                blocking(move || clear(&folder)).await?;
            }
            Built {
                key: prepared.key.clone(),
                salt: prepared.salt.clone(),
                python: python?,
                version: prepared.interpreter.version.clone(),
            }
        }
    };
    drop(one_at_a_time);
    function::run(shared, image_id, log).await?;
    shared.change(|state, _| state.image_built(image_id, built.clone())).await?;
    Ok(built)
}

/// Makes the environment of a recipe in `folder`. It counts once the last file is there: a build that was cut off
/// leaves nothing that another one would take for whole.
async fn install(
    shared: &Shared,
    prepared: &Prepared,
    folder: &Path,
    log: &Log,
) -> Result<Option<PathBuf>, BuildError> {
    let place = folder.to_owned();
    blocking(move || clear(&place)).await?;
    let uv = Uv::find(&prepared.base.python).await?;
    let Prepared { plan, base, interpreter, .. } = prepared;
    let builder = Builder { log, store: &shared.files, uv, base, interpreter, folder };
    let venv = builder.carry_out(plan).await?;
    let python = venv.map(|venv| venv.python());
    let encoded = serde_json::to_vec(&python).map_err(|error| BuildError(error.to_string()))?;
    write_whole(&folder.join(COMPLETE), |file| io::Write::write_all(file, &encoded))
        .map_err(Error::io("save", "an image's environment"))?;
    log.say(if python.is_none() { "the interpreter has all of it already" } else { "the image is built" });
    Ok(python)
}

/// Removes a folder, and ends what still works in it.
fn clear(folder: &Path) -> Result<(), Error> {
    kill_left_overs(folder);
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("clear", "an image's folder")(error)),
        _ => Ok(()),
    }
}
