//! What an image's recipe asks for: the layers from the first to the last, carried out on paper.

use std::{collections::BTreeMap, sync::Arc};

use modal_proto as pb;
use sha2::{Digest, Sha256};

use super::{BuildError, copy::Files, evaluate, install::Install, origin::Origin};

/// Where programs of the system are looked for, after those of the image.
pub const SYSTEM_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// One layer: what the SDK sent, and what that refers to.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    pub image: pb::Image,
    /// The files of the context mount.
    pub mounted: Files,
    /// The name of the context mount, if it is one that Modal publishes.
    pub mount_name: String,
    pub secrets: BTreeMap<String, String>,
    /// Changes when the layer was built anew although its recipe is the same.
    pub salt: String,
    /// The name of what the function that is its step wrote.
    pub home: Option<String>,
}

/// One thing to do when an image is built.
#[derive(Debug, Clone)]
pub struct Step {
    /// The command as it was written, for the log.
    pub text: String,
    pub what: What,
    pub surroundings: Surroundings,
}

#[derive(Debug, Clone)]
pub enum What {
    Install(Install),
    Sync(Vec<String>),
    Poetry(Vec<String>),
    /// A command that is not an installation of Python packages.
    Run(Vec<String>),
    /// An instruction that Local Modal cannot carry out, and why.
    Impossible(String),
}

/// What a command of a recipe finds.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
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
    /// What is not done here, or done differently.
    pub notes: Vec<String>,
    pub salts: Vec<String>,
    /// What `RUN` lines are given to.
    pub shell: Vec<String>,
}

impl Plan {
    /// Works out what layers come to, the first one first.
    pub fn of(layers: &[Layer]) -> Result<Self, BuildError> {
        let mut plan = Self {
            origin: Origin::Python(None),
            steps: Vec::new(),
            variables: BTreeMap::from([("PATH".to_owned(), SYSTEM_PATH.to_owned())]),
            folder: None,
            files: Arc::default(),
            notes: Vec::new(),
            salts: Vec::new(),
            shell: ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
        };
        for layer in layers {
            let before = plan.steps.len();
            evaluate::add(&mut plan, layer)?;
            if plan.steps.len() > before && !layer.salt.is_empty() {
                plan.salts.push(layer.salt.clone());
            }
        }
        Ok(plan)
    }

    /// Removes the steps that are not installations of Python packages, and returns their texts, each once.
    pub fn skip_other_steps(&mut self) -> Vec<String> {
        let mut skipped = Vec::new();
        if let Origin::Foreign { name, python } = &self.origin {
            skipped.push(format!("FROM {name}"));
            self.origin = Origin::Python(python.clone());
        }
        let others = self.steps.extract_if(.., |step| matches!(step.what, What::Run(_) | What::Impossible(_)));
        for step in others.map(|step| step.instruction()) {
            if !skipped.contains(&step) {
                skipped.push(step);
            }
        }
        skipped
    }

    /// Whether the build's own file tree is part of the result.
    pub fn keeps_root(&self) -> bool {
        self.steps.iter().any(|step| match &step.what {
            What::Run(_) => true,
            What::Install(install) => install.editable,
            What::Sync(_) | What::Poetry(_) | What::Impossible(_) => false,
        })
    }

    /// A name for the packages that the steps lead to when they are carried out with a certain interpreter.
    pub fn key(&self, interpreter: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{interpreter}\0{:?}", self.salts));
        for step in &self.steps {
            step.add_to(&mut hash);
        }
        hex::encode(hash.finalize())[..32].to_owned()
    }

    /// The packages with exact versions that all steps together ask for, if it takes no resolver to know them.
    pub fn plain_requirements(&self) -> Option<Vec<(String, Option<String>)>> {
        let mut found = Vec::new();
        for step in &self.steps {
            let What::Install(install) = &step.what else { return None };
            found.extend(install.plain_requirements(&step.surroundings.files)?);
        }
        Some(found)
    }
}

impl Step {
    /// The instruction of a Dockerfile that the step stands for.
    pub fn instruction(&self) -> String {
        match self.what {
            What::Impossible(_) => self.text.clone(),
            _ => format!("RUN {}", self.text),
        }
    }

    fn add_to(&self, hash: &mut Sha256) {
        let Surroundings { variables, files, folder, .. } = &self.surroundings;
        hash.update(b"\0step\0");
        match &self.what {
            What::Install(install) => install.add_to(hash, files),
            What::Sync(arguments) | What::Poetry(arguments) => {
                hash.update(format!("{arguments:?}"));
                files.add_to(hash, if matches!(self.what, What::Sync(_)) { "/.uv" } else { folder });
            }
            What::Run(command) => {
                hash.update(format!("{command:?}{folder}"));
                files.add_to(hash, "/");
            }
            What::Impossible(_) => hash.update(&self.text),
        }
        let all = matches!(self.what, What::Run(_));
        for (name, value) in variables.iter().filter(|(name, _)| all || is_of_installers(name)) {
            hash.update(format!("\0{name}={value}"));
        }
    }
}

/// Whether a variable is one that pip or uv reads.
pub fn is_of_installers(name: &str) -> bool {
    name.starts_with("UV_") || name.starts_with("PIP_")
}
