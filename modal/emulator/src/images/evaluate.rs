//! Layers, instruction by instruction, on paper.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    BuildError,
    copy::{Content, File, absolute},
    dockerfile::{self, Instruction},
    install::{Action, recognise},
    origin::{Origin, origin, standalone_version},
    recipe::{Layer, Plan, Step, Surroundings, What},
    words,
};

/// Adds what a layer does to a plan.
pub fn add(plan: &mut Plan, layer: &Layer) -> Result<(), BuildError> {
    LayerPlan { plan, layer, arguments: BTreeMap::new(), stages: Vec::new() }.carry_out()
}

/// A plan while one layer is added to it.
struct LayerPlan<'a> {
    plan: &'a mut Plan,
    layer: &'a Layer,
    /// `ARG`s; they last until the end of the layer.
    arguments: BTreeMap<String, String>,
    /// The names of the stages that have begun; of one without a name, an empty text.
    stages: Vec<String>,
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
            Instruction::RunDirectly(words) => match recognise(&words)? {
                Some(action) => self.act(action, &words.join(" "), None),
                None => self.push(&words.join(" "), What::Run(words), None),
            },
            Instruction::HereDocument(text) => {
                self.impossible(&text, "here-documents are not supported; put the lines into a file");
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
            self.impossible(&format!("FROM {text}"), "multi-stage Dockerfiles are not supported");
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

    /// Adds a step that Local Modal cannot carry out.
    fn impossible(&mut self, text: &str, why: &str) {
        self.push(text, What::Impossible(why.to_owned()), None);
    }

    fn copy(&mut self, mut words: Vec<String>) -> Result<(), BuildError> {
        let options: Vec<String> = words.extract_if(.., |word| word.starts_with("--")).collect();
        let (Some(target), sources) = (words.pop(), words) else {
            return Err(BuildError("COPY needs a source and a target".to_owned()));
        };
        if let Some(image) = options.iter().find_map(|option| option.strip_prefix("--from=")) {
            // The SDK fetches uv like this; here uv is a program of the server's machine.
            let is_uv = image.rsplit('/').next().is_some_and(|name| name.split([':', '@']).next() == Some("uv"));
            if !is_uv {
                let text = format!("COPY {} {} {target}", options.join(" "), sources.join(" "));
                self.impossible(&text, "copying from other images is not supported");
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
            self.impossible(&text, "files are not downloaded; use add_local_file");
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
            // What the SDK needs; the interpreter has it.
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
            tracing::debug!(option, "an option of RUN makes no difference here");
            text = rest.trim_start();
        }
        let secrets = &self.layer.secrets;
        let lookup = |name: &str| match self.lookup(name) {
            // uv puts the value in itself, so that it is in no command line and no file.
            None if secrets.contains_key(name) => Some(format!("${{{name}}}")),
            value => value,
        };
        let commands = words::shell_commands(text, &lookup);
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
