//! Images: from the recipe that the SDK sends to the interpreter, variables and files that a container begins with.
//!
//! A recipe is a chain of layers of Dockerfile commands (`layers`). `evaluate` works out on paper what they come to, a
//! `recipe::Plan`: `words` and `dockerfile` read them, `install` knows the commands that install packages, `copy` the
//! files, `origin` the images of registries. `prepare` finds the interpreter for it and whether it needs a build; if so,
//! `build` carries the steps out, with `uv` in a `venv`, and `function` those that are functions of the user's. An
//! environment is named by what leads to it, so that equal recipes share it, and it has only what the interpreter of
//! the server has not.

mod build;
mod copy;
mod dockerfile;
mod evaluate;
mod function;
mod install;
mod interpreter;
mod layers;
mod log;
mod origin;
mod own_uv;
mod prepare;
mod recipe;
mod skipped;
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
    prepare::{Prepared, at_hand, has_run, prepare},
    recipe::{Plan, SYSTEM_PATH},
    uv::Uv,
};
pub use self::{
    build::place_files,
    copy::Files,
    log::{Line, Log},
    own_uv::UV,
    skipped::warning,
    uv::network_variables,
};
use crate::{
    containers::{explain, kill_left_overs},
    error::Error,
    files::{blocking, write_whole},
    ids::new_id,
    shared::Shared,
    state::{Built, State},
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
    /// What functions that are steps of the recipe wrote, the last one first.
    pub homes: Vec<PathBuf>,
    /// The steps of the recipe that were skipped.
    pub skipped: Vec<String>,
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
    /// Held while uv is installed.
    own_uv: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Builds {
    by_image: HashMap<String, Arc<Log>>,
    oldest_first: Vec<String>,
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
        && let Some(mut built) = at_hand(shared, &prepared)
        && !force
        && has_run(shared, image_id, &built)
    {
        let known = |state: &State| state.images.get(image_id)?.built.as_ref()?.home.clone();
        built.home = shared.read(known);
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
            // Whatever happens here: those who follow the build hear of its end.
            let log = Finished(log);
            let outcome = tokio::select! {
                outcome = build(&shared, &image_id, salt, &log.0) => outcome,
                () = shared.hang_up.cancelled() => Err(BuildError("the server is shutting down".to_owned())),
            };
            log.0.finish(outcome);
        });
    }
    log
}

/// A log that has an end.
struct Finished(Arc<Log>);

impl Drop for Finished {
    fn drop(&mut self) {
        if self.0.outcome().is_none() {
            self.0.finish(Err(BuildError("the build was lost; the server's own log shows more".to_owned())));
        }
    }
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
        homes: layers
            .iter()
            .rev()
            .filter_map(|layer| Some(shared.options.homes_folder().join(layer.home.as_ref()?)))
            .collect(),
        skipped: skipped::steps(shared, image_id)?,
    })
}

/// The working folder that an image's recipe sets.
pub fn working_folder(shared: &Shared, image_id: &str) -> Option<String> {
    let layers = shared.read(|state| layers::of(state, image_id)).ok()?;
    Plan::of(&layers).ok()?.folder
}

/// Builds an image, or finds that another build has led to the same.
async fn build(shared: &Arc<Shared>, image_id: &str, salt: Option<String>, log: &Log) -> Result<Built, BuildError> {
    let prepared = prepare(shared, image_id, salt).await.inspect_err(|error| log.say(&error.0))?;
    for note in &prepared.plan.notes {
        log.say(&format!("note: {note}"));
    }
    let lock = shared.images.lock_of(&prepared.key);
    let one_at_a_time = match lock.try_lock() {
        Ok(guard) => guard,
        Err(_) => {
            log.say("an image with the same packages is being built; this one waits for it");
            lock.lock().await
        }
    };
    let mut built = match at_hand(shared, &prepared) {
        Some(built) => built,
        None => {
            let folder = shared.options.images_folder().join(&prepared.key);
            let python = install(shared, &prepared, &folder, log).await;
            if python.is_err() {
                blocking(move || clear(&folder)).await?;
            }
            prepared.built(python?)
        }
    };
    drop(one_at_a_time);
    built.home = function::run(shared, image_id, log).await?;
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
    let uv = Uv::find_or_install(shared, &prepared.base.python, log).await?;
    let Prepared { plan, base, interpreter, .. } = prepared;
    let builder = Builder { log, store: &shared.files, uv, base, interpreter, folder };
    let venv = builder.carry_out(plan).await?;
    let python = venv.map(|venv| venv.python());
    let encoded = serde_json::to_vec(&python).map_err(|error| BuildError(error.to_string()))?;
    write_whole(&folder.join(COMPLETE), &encoded).map_err(Error::io("save", "an image's environment"))?;
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
