//! Images: from the recipe that the SDK sends to the interpreter, variables and files of a container.
//!
//! A recipe is a chain of layers of Dockerfile commands (`layers`). `evaluate` turns it into a `recipe::Plan`: `words`
//! and `dockerfile` parse the commands, `install` those that install packages, `copy` has the files, `origin` the
//! images of registries. `prepare` finds the interpreter for it and whether it needs a build; if so, `build` runs the
//! steps, with `uv` in a `venv`, and `function` those that are functions of the user. The name of an environment is a
//! hash of everything that its contents depend on, so that equal recipes share it. It has only the packages that the
//! server's interpreter does not have.

mod build;
pub mod builds;
mod copy;
mod dockerfile;
mod environment;
mod error;
mod evaluate;
mod function;
mod homes;
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
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use self::{
    build::Builder,
    prepare::{Prepared, existing_result, has_run, prepare},
    recipe::Plan,
    uv::Uv,
};
pub use self::{
    build::place_files,
    copy::Files,
    environment::Environment,
    error::BuildError,
    homes::keep_written,
    log::{Line, Log},
    own_uv::UV,
    skipped::warning,
    uv::network_variables,
};
use crate::{
    error::Error,
    files::{blocking, write_whole},
    ids::new_id,
    process::kill_orphans,
    shared::Shared,
    state::{Built, State},
};

/// The file that marks a complete environment, with its interpreter.
pub const COMPLETE: &str = "complete.json";
/// The result of an image, if it needs no build. Otherwise starts its build and returns `None`. `force` builds it in
/// any case.
pub async fn get_or_build(shared: &Arc<Shared>, image_id: &str, force: bool) -> Result<Option<Built>, Error> {
    let salt = force.then(|| new_id("build"));
    if let Ok(prepared) = prepare(shared, image_id, salt.clone()).await
        && let Some(mut built) = existing_result(shared, &prepared)
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

/// Starts the build of an image, unless one runs; returns its log.
pub fn follow_or_build(shared: &Arc<Shared>, image_id: &str, salt: Option<String>) -> Arc<Log> {
    let (log, is_new) = shared.images.begin(image_id);
    if is_new {
        let (shared, image_id, log) = (shared.clone(), image_id.to_owned(), log.clone());
        tokio::spawn(async move {
            // Ensures that those who follow the build see its end, even if it panics.
            let log = LogGuard(log);
            let outcome = tokio::select! {
                outcome = build(&shared, &image_id, salt, &log.0) => outcome,
                () = shared.close_streams.cancelled() => Err(BuildError("the server is shutting down".to_owned())),
            };
            log.0.finish(outcome);
        });
    }
    log
}

/// A log that gets an outcome in any case.
struct LogGuard(Arc<Log>);

impl Drop for LogGuard {
    fn drop(&mut self) {
        if self.0.outcome().is_none() {
            self.0.finish(Err(BuildError("the build was lost; the server's own log shows more".to_owned())));
        }
    }
}

/// The environment of an image's containers. Builds the image if it is not built (any more).
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

/// Builds an image, or uses the result of another build.
async fn build(shared: &Arc<Shared>, image_id: &str, salt: Option<String>, log: &Log) -> Result<Built, BuildError> {
    let prepared = prepare(shared, image_id, salt).await.inspect_err(|error| log.write(&error.0))?;
    for note in &prepared.plan.notes {
        log.write(&format!("note: {note}"));
    }
    let lock = shared.images.lock_of(&prepared.key);
    let one_at_a_time = match lock.try_lock() {
        Ok(guard) => guard,
        Err(_) => {
            log.write("an image with the same packages is being built; this one waits for it");
            lock.lock().await
        }
    };
    let mut built = match existing_result(shared, &prepared) {
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

/// Builds the environment of a recipe in `folder`. It is valid once the last file exists, so that an interrupted build
/// is never taken for complete.
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
    let venv = builder.run_plan(plan).await?;
    let python = venv.map(|venv| venv.python());
    let encoded = serde_json::to_vec(&python).map_err(|error| BuildError(error.to_string()))?;
    write_whole(&folder.join(COMPLETE), &encoded).map_err(Error::io("save", "an image's environment"))?;
    log.write(if python.is_none() { "the interpreter has all of it already" } else { "the image is built" });
    Ok(python)
}

/// Removes a folder, and kills the processes of its build.
fn clear(folder: &Path) -> Result<(), Error> {
    kill_orphans(folder);
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("clear", "an image's folder")(error)),
        _ => Ok(()),
    }
}
