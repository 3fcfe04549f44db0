//! The recipe of an image: its layers, and the plan that they result in.

use std::{collections::BTreeMap, sync::Arc};

use modal_proto as pb;
use sha2::{Digest, Sha256};

use super::{copy::Files, install::Install, origin::Origin};

/// The search path of the system's programs, after those of the image.
pub const SYSTEM_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// One layer: the SDK's message, and what it refers to.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    pub image: pb::Image,
    /// The files of the context mount.
    pub mounted: Files,
    /// The name of the context mount, if it is one that Modal publishes.
    pub mount_name: String,
    pub secrets: BTreeMap<String, String>,
    /// Changes when the layer was rebuilt although its recipe is the same.
    pub salt: String,
    /// The name of the folder with what the function that is its step wrote.
    pub home: Option<String>,
}

/// One step of a build.
#[derive(Debug, Clone)]
pub struct Step {
    /// The command as the user wrote it, for the log.
    pub text: String,
    pub kind: StepKind,
    pub context: StepContext,
}

#[derive(Debug, Clone)]
pub enum StepKind {
    Install(Install),
    Sync(Vec<String>),
    Poetry(Vec<String>),
    /// A command that is not an installation of Python packages.
    Run(Vec<String>),
    /// An instruction that Local Modal cannot run, and why.
    Unsupported(String),
}

/// The context in which a command runs.
#[derive(Debug, Clone, Default)]
pub struct StepContext {
    /// The variables of the image and the arguments of the build.
    pub variables: BTreeMap<String, String>,
    pub secrets: BTreeMap<String, String>,
    pub folder: String,
    pub files: Arc<Files>,
}

/// The whole recipe of an image.
#[derive(Debug, Clone)]
pub struct Plan {
    pub origin: Origin,
    pub steps: Vec<Step>,
    pub variables: BTreeMap<String, String>,
    /// The working folder, if one was set.
    pub folder: Option<String>,
    pub files: Arc<Files>,
    /// Differences from Modal that the log of the build mentions.
    pub notes: Vec<String>,
    pub salts: Vec<String>,
    /// The shell of `RUN` lines.
    pub shell: Vec<String>,
}

impl Plan {
    /// Removes the steps that are not installations of Python packages, and returns their texts, each once.
    pub fn skip_other_steps(&mut self) -> Vec<String> {
        let mut skipped = Vec::new();
        if let Origin::Foreign { name, python } = &self.origin {
            skipped.push(format!("FROM {name}"));
            self.origin = Origin::Python(python.clone());
        }
        let others = self.steps.extract_if(.., |step| matches!(step.kind, StepKind::Run(_) | StepKind::Unsupported(_)));
        for step in others.map(|step| step.instruction()) {
            if !skipped.contains(&step) {
                skipped.push(step);
            }
        }
        skipped
    }

    /// Whether the build's own file tree is part of the result.
    pub fn keeps_root(&self) -> bool {
        self.steps.iter().any(|step| match &step.kind {
            StepKind::Run(_) => true,
            StepKind::Install(install) => install.editable,
            StepKind::Sync(_) | StepKind::Poetry(_) | StepKind::Unsupported(_) => false,
        })
    }

    /// A name for the packages that result from the steps with a certain interpreter.
    pub fn key(&self, interpreter: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{interpreter}\0{:?}", self.salts));
        for step in &self.steps {
            step.add_to(&mut hash);
        }
        hex::encode(hash.finalize())[..32].to_owned()
    }

    /// The packages with exact versions that all steps together ask for, if they are known without a resolver.
    pub fn plain_requirements(&self) -> Option<Vec<(String, Option<String>)>> {
        let mut found = Vec::new();
        for step in &self.steps {
            let StepKind::Install(install) = &step.kind else { return None };
            found.extend(install.plain_requirements(&step.context.files)?);
        }
        Some(found)
    }
}

impl Step {
    /// The Dockerfile instruction of the step.
    pub fn instruction(&self) -> String {
        match self.kind {
            StepKind::Unsupported(_) => self.text.clone(),
            _ => format!("RUN {}", self.text),
        }
    }

    fn add_to(&self, hash: &mut Sha256) {
        let StepContext { variables, files, folder, .. } = &self.context;
        hash.update(b"\0step\0");
        match &self.kind {
            StepKind::Install(install) => install.add_to(hash, files),
            StepKind::Sync(arguments) | StepKind::Poetry(arguments) => {
                hash.update(format!("{arguments:?}"));
                files.add_to(hash, if matches!(self.kind, StepKind::Sync(_)) { "/.uv" } else { folder });
            }
            StepKind::Run(command) => {
                hash.update(format!("{command:?}{folder}"));
                files.add_to(hash, "/");
            }
            StepKind::Unsupported(_) => hash.update(&self.text),
        }
        let all = matches!(self.kind, StepKind::Run(_));
        for (name, value) in variables.iter().filter(|(name, _)| all || is_installer_variable(name)) {
            hash.update(format!("\0{name}={value}"));
        }
    }
}

/// Whether a variable is one that pip or uv reads.
pub fn is_installer_variable(name: &str) -> bool {
    name.starts_with("UV_") || name.starts_with("PIP_")
}
