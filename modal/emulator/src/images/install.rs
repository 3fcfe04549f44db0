//! Commands that install Python packages, parsed into what they install.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::{BuildError, copy::Files, interpreter::normal_name};

/// The effect of a simple command of a `RUN` line.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// No effect here, or one that the interpreter has already.
    Nothing,
    ChangeFolder(String),
    Install(Install),
    /// `uv sync` with these arguments.
    Sync(Vec<String>),
    /// `poetry install` with these arguments.
    Poetry(Vec<String>),
}

/// A part of a command line, which may have a path of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    pub before: String,
    pub path: Option<String>,
    pub after: String,
}

impl Argument {
    fn text(text: impl Into<String>) -> Self {
        Self { before: text.into(), path: None, after: String::new() }
    }

    fn path(before: &str, path: &str) -> Self {
        // "./package[extra]"
        let (path, extras) = path.find('[').map_or((path, ""), |at| path.split_at(at));
        Self { before: before.to_owned(), path: Some(path.to_owned()), after: extras.to_owned() }
    }
}

/// An installation by pip or uv, as arguments of uv.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Install {
    /// Arguments of the command, none of which has a URL.
    pub options: Vec<Argument>,
    /// Lines of a requirements file: packages, and options with URLs, which may have credentials.
    pub lines: Vec<Argument>,
    /// The index that replaces the default one. Like the others it is passed to uv by a variable, because its URL may
    /// have credentials and because it must win over this machine's own.
    pub default_index: Option<String>,
    pub extra_indexes: Vec<String>,
    pub indexes: Vec<String>,
    /// Whether a package is installed in editable mode.
    pub editable: bool,
}

/// Recognizes a command; `None` if it does not install Python packages.
pub fn recognize(command: &[String]) -> Result<Option<Action>, BuildError> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let (program, rest) = match words.split_first() {
        Some((program, rest)) => (program.rsplit('/').next().unwrap_or(program), rest),
        None => return Ok(Some(Action::Nothing)),
    };
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    Ok(match (program, rest) {
        ("cd", [folder]) => Some(Action::ChangeFolder((*folder).to_owned())),
        ("true", []) | ("apt-get", ["update"]) | ("pip", ["cache", "purge"]) | ("rm", ["/modal_requirements.txt"]) => {
            Some(Action::Nothing)
        }
        ("poetry", ["config", "virtualenvs.create", "false"]) => Some(Action::Nothing),
        ("poetry", ["install", arguments @ ..]) => Some(Action::Poetry(owned(arguments))),
        ("uv", ["sync", arguments @ ..]) => Some(Action::Sync(owned(arguments))),
        ("uv", ["pip", "install", arguments @ ..]) => Some(Action::Install(Install::parse(arguments, false)?)),
        (program, ["install", arguments @ ..]) if program.starts_with("pip") => {
            Some(Action::Install(Install::parse(arguments, true)?))
        }
        (program, ["-m", module @ ("pip" | "uv"), more @ ..]) if program.starts_with("python") => {
            let command: Vec<String> =
                std::iter::once(*module).chain(more.iter().copied()).map(str::to_owned).collect();
            recognize(&command)?
        }
        _ => None,
    })
}

/// Options without effect here, or that are decided here: the interpreter, the cache, the output. Bytecode is compiled
/// at the first import; there is no snapshot to keep it for.
const DROPPED: &str = "--system --user --break-system-packages --no-cache --no-cache-dir -n --compile-bytecode --compile \
    --no-compile -q -qq --quiet -v -vv --verbose --no-clean --no-progress --disable-pip-version-check \
    --no-input -I --ignore-installed --prefer-binary --no-warn-script-location --use-pep517 --isolated \
    --no-color --no-python-downloads";
const DROPPED_WITH_VALUE: &str = "--python -p --cache-dir --progress-bar --root-user-action --retries --timeout --default-timeout \
    --upgrade-strategy --use-feature --use-deprecated --color --link-mode --exists-action";
const WITH_VALUE: &str = "--extra --group --index-strategy --keyring-provider -P --upgrade-package --resolution --prerelease \
    --exclude-newer --reinstall-package -C --config-setting --config-settings --no-binary --only-binary \
    --no-build-isolation-package --torch-backend --refresh-package --fork-strategy --allow-insecure-host";
const ELSEWHERE: &str = "-t --target --prefix --root --dry-run";

fn is_one_of(options: &str, option: &str) -> bool {
    options.split(' ').any(|known| known == option)
}

/// uv's name of an option whose value is a path.
fn with_path(option: &str) -> Option<&'static str> {
    Some(match option {
        "-r" | "--requirement" | "--requirements" => "--requirements",
        "-c" | "--constraint" | "--constraints" => "--constraints",
        "--override" | "--overrides" => "--overrides",
        "--excludes" => "--excludes",
        "-b" | "--build-constraints" => "--build-constraints",
        _ => return None,
    })
}

impl Install {
    fn parse(arguments: &[&str], by_pip: bool) -> Result<Self, BuildError> {
        let mut install = Self::default();
        let mut rest = arguments.iter().copied();
        while let Some(argument) = rest.next() {
            if !argument.starts_with('-') {
                install.lines.push(requirement(argument));
                continue;
            }
            let (option, attached) = split_value(argument);
            let mut value = || {
                let missing = || BuildError(format!("{option} has no value"));
                attached.or_else(|| rest.next()).ok_or_else(missing)
            };
            if is_one_of(ELSEWHERE, option) {
                return Err(BuildError(format!(
                    "{option} is not possible here: packages go to the image's environment"
                )));
            } else if is_one_of(DROPPED, option) {
                continue;
            } else if is_one_of(DROPPED_WITH_VALUE, option) {
                value()?;
            } else if let Some(uv_option) = with_path(option) {
                install.options.push(Argument::path(&format!("{uv_option}="), value()?));
            } else if is_one_of(WITH_VALUE, option) {
                install.options.push(Argument::text(format!("{option}={}", value()?)));
            } else if !install.source(option, &mut value)? {
                // uv judges unknown options.
                let renamed = if option == "--pre" { "--prerelease=allow" } else { argument };
                install.options.push(Argument::text(renamed));
            }
        }
        if by_pip && !install.extra_indexes.is_empty() {
            // pip takes the best version of any index; uv by default takes the first index that has the package.
            install.options.push(Argument::text("--index-strategy=unsafe-best-match"));
        }
        Ok(install)
    }

    /// Handles an option about the source of packages. Returns whether it was one.
    fn source<'a>(
        &mut self,
        option: &str,
        value: &mut impl FnMut() -> Result<&'a str, BuildError>,
    ) -> Result<bool, BuildError> {
        match option {
            "-i" | "--index-url" | "--pypi-url" | "--default-index" => {
                self.default_index = Some(value()?.to_owned());
            }
            "--extra-index-url" => self.extra_indexes.push(value()?.to_owned()),
            "--index" => self.indexes.push(value()?.to_owned()),
            "-f" | "--find-links" => match value()? {
                url if url.contains("://") => self.lines.push(Argument::text(format!("--find-links {url}"))),
                path => self.options.push(Argument::path("--find-links=", path)),
            },
            "--trusted-host" => self.options.push(Argument::text(format!("--allow-insecure-host={}", value()?))),
            "-e" | "--editable" => {
                self.editable = true;
                match value()? {
                    url if url.contains("://") => self.lines.push(Argument::text(format!("-e {url}"))),
                    path => self.options.push(Argument::path("--editable=", path)),
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether it installs only the SDK's requirements or installers: the interpreter has the former, and uv is the
    /// installer here.
    pub fn is_of_the_builder(&self) -> bool {
        let requirements = self.options.iter().filter_map(|option| option.path.as_deref());
        let own =
            requirements.clone().count() > 0 && requirements.clone().all(|path| path == "/modal_requirements.txt");
        let tools = self.options == [Argument::text("--upgrade")]
            && self.lines.iter().all(|line| matches!(line.before.as_str(), "pip" | "wheel" | "uv" | "setuptools"));
        (own && self.lines.is_empty()) || tools
    }

    /// The packages that it names, with exact versions where given, if it has nothing else. Then no resolver is needed
    /// to see that an interpreter has them.
    pub fn plain_requirements(&self, files: &Files) -> Option<Vec<(String, Option<String>)>> {
        let mut found = Vec::new();
        for option in &self.options {
            match (option.before.as_str(), &option.path) {
                ("--requirements=", Some(path)) => {
                    let text = files.get(path)?.inline_text()?;
                    for line in text.lines().map(|line| line.split(" #").next().unwrap_or(line).trim()) {
                        if !line.is_empty() && !line.starts_with('#') {
                            found.push(plain(line)?);
                        }
                    }
                }
                ("--find-links=", Some(_)) | ("--no-index" | "--no-deps" | "--prerelease=allow", None) => {}
                (text, None) if text.starts_with("--index-strategy=") => {}
                _ => return None,
            }
        }
        for line in self.lines.iter().filter(|line| !line.before.starts_with("--")) {
            found.push(if line.path.is_none() { plain(&line.before)? } else { return None });
        }
        Some(found)
    }

    /// Adds everything that decides what it installs to a hash.
    pub fn add_to(&self, hash: &mut Sha256, files: &Files) {
        let mut lines: Vec<String> = self.lines.iter().map(|line| format!("{line:?}")).collect();
        lines.sort();
        hash.update(format!("{:?}{lines:?}", self.options));
        hash.update(format!("{:?}{:?}{:?}", self.default_index, self.extra_indexes, self.indexes));
        let arguments = self.options.iter().chain(&self.lines);
        for path in arguments.filter_map(|argument| argument.path.as_deref()) {
            files.add_to(hash, path);
        }
    }

    /// The lines of its requirements file, with paths mapped by `place`.
    pub fn requirements_file(&self, place: impl Fn(&str) -> String) -> String {
        self.lines.iter().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{}", line.render(&place));
            text
        })
    }
}

impl Argument {
    /// The argument with its path mapped by `place`.
    pub fn render(&self, place: impl Fn(&str) -> String) -> String {
        let path = self.path.as_deref().map(place).unwrap_or_default();
        format!("{}{path}{}", self.before, self.after)
    }
}

fn split_value(argument: &str) -> (&str, Option<&str>) {
    if let Some((option, value)) = argument.split_once('=') {
        return (option, Some(value));
    }
    let short_with_value = ["-r", "-c", "-f", "-i", "-e", "-t", "-p", "-P", "-C", "-b"];
    match argument.get(..2) {
        Some(option) if argument.len() > 2 && short_with_value.contains(&option) => (option, argument.get(2..)),
        _ => (argument, None),
    }
}

fn requirement(text: &str) -> Argument {
    let file = text.ends_with(".whl") || text.ends_with(".tar.gz") || text.ends_with(".zip");
    let is_path = text.starts_with(['/', '.']) || (file && !text.contains("://") && !text.contains('@'));
    if is_path { Argument::path("", text) } else { Argument::text(text) }
}

/// The name and the exact version of a requirement that has nothing else.
fn plain(requirement: &str) -> Option<(String, Option<String>)> {
    let requirement = requirement.split(" --hash=").next()?.trim();
    let (name, version) = match requirement.split_once("==") {
        Some((name, version)) => (name.trim(), Some(version.trim().trim_end_matches('\\').trim())),
        None => (requirement, None),
    };
    let simple = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let valid = simple(name, "._-") && version.is_none_or(|version| simple(version, ".+!"));
    valid.then(|| (normal_name(name), version.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Action> {
        recognize(&text.split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    fn install(text: &str) -> Install {
        match parse(text) {
            Some(Action::Install(install)) => install,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn install_commands_are_recognized() {
        for text in
            ["pip install a", "pip3 install a", "python -m pip install a", "/.uv/uv pip install --python python a"]
        {
            assert_eq!(install(text).lines, [Argument::text("a")], "{text}");
        }
        assert_eq!(parse("/.uv/uv sync --frozen"), Some(Action::Sync(vec!["--frozen".into()])));
        assert_eq!(parse("apt-get install -y git"), None);
        assert_eq!(parse("python setup.py"), None);
        assert_eq!(parse("pip uninstall a"), None);
        assert!(recognize(&["pip".to_owned(), "install".into(), "--target".into(), "/x".into(), "a".into()]).is_err());
    }

    #[test]
    fn pip_options_become_uv_options() {
        let parsed = install(
            "pip install -U --no-cache-dir -r/req.txt --extra-index-url=http://u:p@i/ --pre -f /w a[b]==1 ./c[d]",
        );
        let render =
            |arguments: &[Argument]| arguments.iter().map(|a| a.render(|p| format!("R{p}"))).collect::<Vec<_>>();
        assert_eq!(
            render(&parsed.options),
            [
                "-U",
                "--requirements=R/req.txt",
                "--prerelease=allow",
                "--find-links=R/w",
                "--index-strategy=unsafe-best-match"
            ]
        );
        assert_eq!(render(&parsed.lines), ["a[b]==1", "R./c[d]"]);
        assert_eq!(parsed.extra_indexes, ["http://u:p@i/"]);
        assert_eq!(parsed.requirements_file(|p| p.to_owned()), "a[b]==1\n./c[d]\n");
    }

    #[test]
    fn requirements_without_resolution_are_recognized() {
        let plain = |text| install(text).plain_requirements(&Files::default());
        let found = plain("uv pip install --python python --compile-bytecode Zope.Interface==1.2 a_b");
        assert_eq!(found, Some(vec![("zope-interface".into(), Some("1.2".into())), ("a-b".into(), None)]));
        for text in
            ["pip install -U a", "pip install a>=1", "pip install a[b]", "pip install ./a", "pip install a==1.*"]
        {
            assert_eq!(plain(text), None, "{text}");
        }
        assert!(install("pip install --upgrade pip wheel uv").is_of_the_builder());
        assert!(install("uv pip install --system --no-deps -r /modal_requirements.txt").is_of_the_builder());
        assert!(!install("pip install --upgrade pip httpx").is_of_the_builder());
        assert!(!install("pip install uv").is_of_the_builder());
    }
}
