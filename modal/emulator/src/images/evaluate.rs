//! Evaluation of layers into a plan, instruction by instruction. Nothing is built here.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    BuildError,
    copy::{Content, File, absolute},
    dockerfile::{self, Instruction},
    install::{Action, recognize},
    origin::{Origin, origin, standalone_version},
    recipe::{Layer, Plan, SYSTEM_PATH, Step, StepContext, StepKind},
    words,
};

impl Plan {
    /// The plan of a chain of layers, the first one first.
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
            add(&mut plan, layer)?;
            if plan.steps.len() > before && !layer.salt.is_empty() {
                plan.salts.push(layer.salt.clone());
            }
        }
        Ok(plan)
    }
}

/// Adds what a layer does to a plan.
fn add(plan: &mut Plan, layer: &Layer) -> Result<(), BuildError> {
    LayerPlan { plan, layer, arguments: BTreeMap::new(), stages: Vec::new() }.evaluate()
}

/// A plan while one layer is added to it.
struct LayerPlan<'a> {
    plan: &'a mut Plan,
    layer: &'a Layer,
    /// `ARG`s, which last until the end of the layer.
    arguments: BTreeMap<String, String>,
    /// The names of the stages so far; empty for a stage without a name.
    stages: Vec<String>,
}

impl LayerPlan<'_> {
    fn evaluate(mut self) -> Result<(), BuildError> {
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
            Instruction::From(text) => self.from(&text),
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
            Instruction::RunDirectly(words) => match recognize(&words)? {
                Some(action) => self.act(action, &words.join(" "), None),
                None => self.push(&words.join(" "), StepKind::Run(words), None),
            },
            Instruction::HereDocument(text) => {
                self.add_unsupported(&text, "here-documents are not supported; put the lines into a file");
            }
            Instruction::Other(keyword) if matches!(keyword.as_str(), "ENTRYPOINT" | "USER") => {
                self.note(format!("{keyword} has no effect here: containers are this user's processes"));
            }
            Instruction::Other(_) => {}
        }
        Ok(())
    }

    fn from(&mut self, text: &str) {
        if !self.stages.is_empty() {
            self.add_unsupported(&format!("FROM {text}"), "multi-stage Dockerfiles are not supported");
        }
        let mut words = self.words(text).into_iter().filter(|word| !word.starts_with("--"));
        let reference = words.next().unwrap_or_default();
        let is_layer = self.layer.image.base_images.iter().any(|base| base.docker_tag == reference);
        if !is_layer && !self.stages.contains(&reference) {
            self.plan.origin = origin(&reference);
        }
        // After the word AS.
        self.stages.push(words.nth(1).unwrap_or_default());
    }

    /// Adds a step that Local Modal cannot run.
    fn add_unsupported(&mut self, text: &str, why: &str) {
        self.push(text, StepKind::Unsupported(why.to_owned()), None);
    }

    fn copy(&mut self, mut words: Vec<String>) -> Result<(), BuildError> {
        let options: Vec<String> = words.extract_if(.., |word| word.starts_with("--")).collect();
        let (Some(target), sources) = (words.pop(), words) else {
            return Err(BuildError("COPY needs a source and a target".to_owned()));
        };
        if let Some(image) = options.iter().find_map(|option| option.strip_prefix("--from=")) {
            // The SDK fetches uv like this; here uv is a program of this machine.
            let is_uv = image.rsplit('/').next().is_some_and(|name| name.split([':', '@']).next() == Some("uv"));
            if !is_uv {
                let text = format!("COPY {} {} {target}", options.join(" "), sources.join(" "));
                self.add_unsupported(&text, "copying from other images is not supported");
            }
            return Ok(());
        }
        if self.layer.mount_name.starts_with("python-build-standalone") && target == "/usr/local" {
            let version = standalone_version(&self.layer.mount_name);
            if let Origin::Foreign { python, .. } = &mut self.plan.origin {
                *python = Some(version);
            }
            return Ok(());
        }
        if let Some(url) = sources.iter().find(|source| source.contains("://")) {
            let text = format!("ADD {url} {target}");
            self.add_unsupported(&text, "files are not downloaded; use add_local_file");
            return Ok(());
        }
        let folder = if target.ends_with('/') || target == "." { "/" } else { "" };
        let target = absolute(&self.folder(), &target) + folder;
        let mut context = self.layer.mounted.clone();
        for file in &self.layer.image.context_files {
            let content = Content::Inline(file.data.clone());
            context.0.insert(absolute("/", &file.filename), File { content, mode: None });
        }
        if sources == ["/modal_requirements.txt"] {
            // The SDK's requirements; the interpreter has them.
            return Ok(());
        }
        Arc::make_mut(&mut self.plan.files).copy(&context, &sources, &target)
    }

    fn run(&mut self, text: &str) -> Result<(), BuildError> {
        if self.is_builders_own(text)? {
            return Ok(());
        }
        // Options such as --mount=type=cache,… are about how Docker builds.
        let mut text = text;
        while let Some((option, rest)) = text.split_once(char::is_whitespace).filter(|(word, _)| word.starts_with("--"))
        {
            tracing::debug!(option, "an option of RUN is ignored");
            text = rest.trim_start();
        }
        let secrets = &self.layer.secrets;
        let lookup = |name: &str| match self.lookup(name) {
            // uv inserts the value itself, so that it is in no command line and no file.
            None if secrets.contains_key(name) => Some(format!("${{{name}}}")),
            value => value,
        };
        let commands = words::shell_commands(text, &lookup);
        let mut actions = Vec::new();
        for command in commands.iter().flatten() {
            actions.push(recognize(command)?);
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
                self.push(text, StepKind::Run(command), None);
            }
        }
        Ok(())
    }

    /// Commands that the SDK itself adds to recipes, and whose results every interpreter here has.
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
            Action::Install(install) => self.push(text, StepKind::Install(install), folder),
            Action::Sync(arguments) => self.push(text, StepKind::Sync(arguments), folder),
            Action::Poetry(arguments) => self.push(text, StepKind::Poetry(arguments), folder),
        }
    }

    fn push(&mut self, text: &str, kind: StepKind, folder: Option<String>) {
        let mut variables = self.arguments.clone();
        variables.extend(self.plan.variables.clone());
        let context = StepContext {
            variables,
            secrets: self.layer.secrets.clone(),
            folder: folder.unwrap_or_else(|| self.folder()),
            files: self.plan.files.clone(),
        };
        self.plan.steps.push(Step { text: text.to_owned(), kind, context });
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
