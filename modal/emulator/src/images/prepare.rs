//! Preparation: the interpreter for a recipe, and whether its result exists already.

use std::{collections::HashMap, fs, path::PathBuf, sync::Arc, time::SystemTime};

use super::{
    BuildError, COMPLETE,
    interpreter::Interpreter,
    layers,
    log::Log,
    origin::Origin,
    recipe::{Plan, StepKind},
    uv::Uv,
};
use crate::{options::ImageSteps, shared::Shared, state::Built};

/// A recipe with its interpreter.
pub struct Prepared {
    pub plan: Plan,
    pub base: Interpreter,
    pub interpreter: Interpreter,
    pub key: String,
    pub salt: String,
}

impl Prepared {
    /// The result of the recipe, with the interpreter of its environment. The build adds what its function wrote.
    pub fn built(&self, python: Option<PathBuf>) -> Built {
        let (key, salt, version) = (self.key.clone(), self.salt.clone(), self.interpreter.version.clone());
        Built { key, salt, python, version, home: None }
    }
}

/// Prepares an image's recipe. With a `salt`, it is rebuilt.
pub async fn prepare(shared: &Arc<Shared>, image_id: &str, salt: Option<String>) -> Result<Prepared, BuildError> {
    let mut layers = shared.read(|state| layers::of(state, image_id))?;
    if let (Some(salt), Some(last)) = (salt, layers.last_mut()) {
        last.salt = salt;
    }
    let mut plan = Plan::of(&layers)?;
    match shared.options.image_steps {
        ImageSteps::Skip => drop(plan.skip_other_steps()),
        ImageSteps::Refuse => refuse(&plan, false)?,
        ImageSteps::Run => refuse(&plan, true)?,
    }
    let base = shared.images.inspect(&shared.options.python).await?;
    let wanted = match &plan.origin {
        Origin::Python(Some(version)) if !base.is_of(version) => Some(version.clone()),
        Origin::Foreign { .. } | Origin::Python(_) => None,
    };
    let interpreter = match wanted {
        None => base.clone(),
        Some(version) => other_version(shared, &version, &base).await?,
    };
    let key = plan.key(&format!("{}\0{}", base.identity(), interpreter.identity()));
    let salt = layers.pop().map(|layer| layer.salt).unwrap_or_default();
    Ok(Prepared { plan, base, interpreter, key, salt })
}

/// Refuses a plan with a step that cannot run. `commands_run`: whether commands can.
fn refuse(plan: &Plan, commands_run: bool) -> Result<(), BuildError> {
    let refused = |what: &str, why: &str| {
        let run = if commands_run {
            ""
        } else {
            "; to run commands on this machine, with your permissions and no isolation: modal-local serve \
             --unsafe-run-commands"
        };
        BuildError(format!(
            "Local Modal does not carry out `{what}`: {why}. To skip such steps, start the server with: modal-local serve \
             --images=skip (in airflowd.yaml: local_modal.images: skip){run}"
        ))
    };
    if let Origin::Foreign { name, .. } = &plan.origin
        && !commands_run
    {
        return Err(refused(&format!("FROM {name}"), "only Python base images (python:3.X…) are supported"));
    }
    for step in &plan.steps {
        let why = match &step.kind {
            StepKind::Run(_) if !commands_run => "only installations of Python packages are carried out",
            StepKind::Unsupported(why) => why,
            _ => continue,
        };
        return Err(refused(&step.instruction(), why));
    }
    Ok(())
}

async fn other_version(shared: &Arc<Shared>, version: &str, base: &Interpreter) -> Result<Interpreter, BuildError> {
    let mut parts = version.split('.');
    let series = [parts.next(), parts.next()].into_iter().flatten().collect::<Vec<_>>().join(".");
    let uv = Uv::find_or_install(shared, &base.python, &Log::default()).await?;
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

/// The result of a recipe, if it needs no build.
pub fn existing_result(shared: &Shared, prepared: &Prepared) -> Option<Built> {
    let Prepared { plan, base, interpreter, key, .. } = prepared;
    if interpreter.python == base.python && has_all(base, plan) {
        return Some(prepared.built(None));
    }
    let marker = shared.options.images_folder().join(key).join(COMPLETE);
    let python: Option<PathBuf> = serde_json::from_slice(&fs::read(&marker).ok()?).ok()?;
    // Marks it as used.
    let touched = fs::File::options().append(true).open(&marker).and_then(|file| file.set_modified(SystemTime::now()));
    if let Err(error) = touched {
        tracing::debug!(%error, "the time of an environment could not be set");
    }
    python.as_ref().is_none_or(|python| python.is_file()).then(|| prepared.built(python))
}

/// Whether the function that is the last step of an image, if there is one, has run for this result.
pub fn has_run(shared: &Shared, image_id: &str, built: &Built) -> bool {
    shared.read(|state| {
        let Some(image) = state.images.get(image_id) else { return false };
        let has_function = image.decoded().is_ok_and(|recipe| recipe.build_function.is_some());
        !has_function || image.built.as_ref().is_some_and(|earlier| earlier.key == built.key)
    })
}

/// Whether an interpreter has everything that a recipe asks for, as far as that is certain without a resolver.
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
