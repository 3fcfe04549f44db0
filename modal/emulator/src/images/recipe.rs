//! What an image's recipe asks for: the layers from the first to the last, carried out on paper.

use std::{collections::BTreeMap, sync::Arc};

use modal_proto as pb;
use sha2::{Digest, Sha256};

use super::{
    BuildError,
    copy::{Content, File, Files, absolute},
    dockerfile::{self, Instruction},
    install::{Action, Install, recognise},
    words,
};

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
}

/// What the recipe says about the system that the image begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Python, of a version if one is named.
    Python(Option<String>),
    /// Something else, for which the interpreter of the server stands in.
    Foreign(String),
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
    /// A command that is no installation of Python packages.
    Run(Vec<String>),
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
    shell: Vec<String>,
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
            LayerPlan { plan: &mut plan, layer, arguments: BTreeMap::new(), begun: false }.carry_out()?;
            if plan.steps.len() > before && !layer.salt.is_empty() {
                plan.salts.push(layer.salt.clone());
            }
        }
        Ok(plan)
    }

    /// Whether commands other than installations are among the steps; the first one.
    pub fn first_command(&self) -> Option<&Step> {
        self.steps.iter().find(|step| matches!(step.what, What::Run(_)))
    }

    /// Whether the build's own file tree is part of the result.
    pub fn keeps_root(&self) -> bool {
        self.steps.iter().any(|step| match &step.what {
            What::Run(_) => true,
            What::Install(install) => install.editable,
            What::Sync(_) | What::Poetry(_) => false,
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

/// A plan while one layer is added to it.
struct LayerPlan<'a> {
    plan: &'a mut Plan,
    layer: &'a Layer,
    /// `ARG`s; they last until the end of the layer.
    arguments: BTreeMap<String, String>,
    begun: bool,
}

impl LayerPlan<'_> {
    fn carry_out(mut self) -> Result<(), BuildError> {
        if !self.layer.image.volume_mounts.is_empty() {
            self.note("Volumes are not mounted while an image is built");
        }
        for instruction in dockerfile::parse(&self.layer.image.dockerfile_commands)? {
            self.add(instruction)?;
        }
        Ok(())
    }

    fn note(&mut self, text: impl Into<String>) {
        self.plan.notes.push(text.into());
    }

    /// The value of a variable in an instruction.
    fn lookup(&self, name: &str) -> Option<String> {
        self.plan.variables.get(name).or_else(|| self.arguments.get(name)).cloned()
    }

    fn words(&self, text: &str) -> Vec<String> {
        words::instruction_words(text, &|name| self.lookup(name))
    }

    fn folder(&self) -> String {
        self.plan.folder.clone().unwrap_or_else(|| "/".to_owned())
    }

    fn add(&mut self, instruction: Instruction) -> Result<(), BuildError> {
        match instruction {
            Instruction::From(reference) => self.from(&reference)?,
            Instruction::Env(text) => {
                for (name, value) in assignments(self.words(&text)) {
                    self.plan.variables.insert(name, value);
                }
            }
            Instruction::Workdir(text) => {
                let path = self.words(&text).join(" ");
                self.plan.folder = Some(absolute(&self.folder(), &path));
            }
            Instruction::Arg(text) => {
                let text = self.words(&text).join(" ");
                let (name, default) = text.split_once('=').map_or((text.as_str(), None), |(n, d)| (n, Some(d)));
                let given = self.layer.image.build_args.get(name).map(String::as_str);
                if let Some(value) = given.or(default) {
                    self.arguments.insert(name.to_owned(), value.to_owned());
                }
            }
            Instruction::Shell(shell) => self.plan.shell = shell,
            Instruction::Copy(text) => self.copy(self.words(&text))?,
            Instruction::CopyList(words) => self.copy(words)?,
            Instruction::Run(text) => self.run(&text)?,
            Instruction::RunDirectly(words) => match recognise(&words)? {
                Some(action) => self.act(action, &words.join(" "), None),
                None => self.push(&words.join(" "), What::Run(words), None),
            },
            Instruction::Other(keyword) if matches!(keyword.as_str(), "ENTRYPOINT" | "USER") => {
                self.note(format!("{keyword} has no effect here: containers are this user's processes"));
            }
            Instruction::Other(_) => {}
        }
        Ok(())
    }

    fn from(&mut self, reference: &str) -> Result<(), BuildError> {
        if std::mem::replace(&mut self.begun, true) {
            return Err(BuildError(format!(
                "FROM {reference}\nDockerfiles with several stages are not built by Local Modal"
            )));
        }
        let words = self.words(reference);
        let reference = words.iter().find(|word| !word.starts_with("--")).map_or("", String::as_str);
        let is_layer = self.layer.image.base_images.iter().any(|base| base.docker_tag == reference);
        if !is_layer {
            self.plan.origin = origin(reference);
        }
        Ok(())
    }

    fn copy(&mut self, mut words: Vec<String>) -> Result<(), BuildError> {
        let options: Vec<String> = words.extract_if(.., |word| word.starts_with("--")).collect();
        let (Some(target), sources) = (words.pop(), words) else {
            return Err(BuildError("COPY needs a source and a target".to_owned()));
        };
        if let Some(image) = options.iter().find_map(|option| option.strip_prefix("--from=")) {
            // The SDK fetches uv like this; here uv is a program of the server's machine.
            let is_uv = image.rsplit('/').next().is_some_and(|name| name.split([':', '@']).next() == Some("uv"));
            return if is_uv {
                Ok(())
            } else {
                Err(BuildError(format!("COPY --from={image}\nfiles of other images cannot be had by Local Modal")))
            };
        }
        if self.layer.mount_name.starts_with("python-build-standalone") && target == "/usr/local" {
            let version = standalone_version(&self.layer.mount_name);
            if let Origin::Foreign(name) = &self.plan.origin {
                self.plan.origin = Origin::Foreign(format!("{name} with Python {version}"));
            }
            return Ok(());
        }
        if let Some(url) = sources.iter().find(|source| source.contains("://")) {
            return Err(BuildError(format!("ADD {url}\nfiles are not downloaded by Local Modal; use add_local_file")));
        }
        let folder = if target.ends_with('/') || target == "." { "/" } else { "" };
        let target = absolute(&self.folder(), &target) + folder;
        let mut context = self.layer.mounted.clone();
        for file in &self.layer.image.context_files {
            let content = Content::Inline(file.data.clone());
            context.0.insert(absolute("/", &file.filename), File { content, mode: None });
        }
        if sources == ["/modal_requirements.txt"] {
            // What the SDK needs; the interpreter has it.
            return Ok(());
        }
        Arc::make_mut(&mut self.plan.files).copy(&context, &sources, &target)
    }

    fn run(&mut self, text: &str) -> Result<(), BuildError> {
        if self.is_builders_own(text)? {
            return Ok(());
        }
        // Options such as --mount=type=cache,… make builds faster, or give Secrets in files.
        let command = text.trim_start();
        let secrets = &self.layer.secrets;
        let lookup = |name: &str| match self.lookup(name) {
            // uv puts the value in itself, so that it is in no command line and no file.
            None if secrets.contains_key(name) => Some(format!("${{{name}}}")),
            value => value,
        };
        let commands = words::shell_commands(command, &lookup);
        let mut actions = Vec::new();
        for command in commands.iter().flatten() {
            actions.push(recognise(command)?);
        }
        match actions.into_iter().collect::<Option<Vec<_>>>() {
            Some(actions) if commands.is_some() => {
                let mut folder = None;
                for action in actions {
                    match action {
                        Action::ChangeFolder(path) => folder = Some(absolute(&self.folder(), &path)),
                        action => self.act(action, text, folder.clone()),
                    }
                }
            }
            _ => {
                let command = self.plan.shell.iter().cloned().chain([text.to_owned()]).collect();
                self.push(text, What::Run(command), None);
            }
        }
        Ok(())
    }

    /// Commands that the SDK itself writes into recipes, and whose results every interpreter here has.
    fn is_builders_own(&self, text: &str) -> Result<bool, BuildError> {
        if let Some(check) = text.strip_prefix("bash -c \"[[ -v ") {
            let name = check.split(' ').next().unwrap_or_default();
            return match self.layer.secrets.contains_key(name) || self.plan.variables.contains_key(name) {
                true => Ok(true),
                false => Err(BuildError(format!("{name} is in none of the Secrets that were given to this layer"))),
            };
        }
        Ok(matches!(
            text,
            "apt-get update"
                | "apt-get install -y gcc gfortran build-essential"
                | "apt-get update && apt-get install -y git"
                | "echo 'debconf debconf/frontend select Noninteractive' | debconf-set-selections"
                | "ln -s /usr/local/bin/python3 /usr/local/bin/python"
                | "poetry config experimental.new-installer false"
        ))
    }

    fn act(&mut self, action: Action, text: &str, folder: Option<String>) {
        match action {
            Action::Nothing | Action::ChangeFolder(_) => {}
            Action::Install(install) if install.is_of_the_builder() => {}
            Action::Install(install) => self.push(text, What::Install(install), folder),
            Action::Sync(arguments) => self.push(text, What::Sync(arguments), folder),
            Action::Poetry(arguments) => self.push(text, What::Poetry(arguments), folder),
        }
    }

    fn push(&mut self, text: &str, what: What, folder: Option<String>) {
        let mut variables = self.arguments.clone();
        variables.extend(self.plan.variables.clone());
        let surroundings = Surroundings {
            variables,
            secrets: self.layer.secrets.clone(),
            folder: folder.unwrap_or_else(|| self.folder()),
            files: self.plan.files.clone(),
        };
        self.plan.steps.push(Step { text: text.to_owned(), what, surroundings });
    }
}

/// The variables of an `ENV`: `A=1 B=2`, or the old form `A the rest`.
fn assignments(words: Vec<String>) -> Vec<(String, String)> {
    let pairs: Option<Vec<_>> =
        words.iter().map(|word| word.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()))).collect();
    match (pairs, words.split_first()) {
        (Some(pairs), _) => pairs,
        (None, Some((name, value))) => vec![(name.clone(), value.join(" "))],
        (None, None) => Vec::new(),
    }
}

/// What an image of a registry is good for here: those of Python are told by their names.
fn origin(reference: &str) -> Origin {
    let (name, tag) = match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (reference, ""),
    };
    let version = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let version = text[..end].trim_end_matches('.');
        (!version.is_empty()).then(|| version.to_owned())
    };
    let place = name.strip_prefix("docker.io/").unwrap_or(name);
    match place {
        "python" => Origin::Python(version(tag)),
        place if place.ends_with("library/python") => Origin::Python(version(tag)),
        place if place.ends_with("astral-sh/uv") && tag.starts_with("python") => {
            Origin::Python(version(tag.trim_start_matches("python")))
        }
        _ => Origin::Foreign(reference.to_owned()),
    }
}

/// The version in a name such as `python-build-standalone.20230826.3.11-gnu`.
fn standalone_version(mount: &str) -> String {
    let rest = mount.splitn(3, '.').nth(2).unwrap_or_default();
    rest.split('-').next().unwrap_or_default().to_owned()
}
