//! Python interpreters of this machine, and their installed packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::error::BuildError;

/// Prints the version and the folders with packages.
const QUESTION: &str = "import json, site, sys; \
    print(json.dumps(['.'.join(map(str, sys.version_info[:3])), site.getsitepackages()]))";

/// An interpreter.
#[derive(Debug, Clone)]
pub struct Interpreter {
    pub python: PathBuf,
    /// Such as 3.11.7.
    pub version: String,
    /// Folders with packages.
    pub sites: Vec<PathBuf>,
}

/// An installed package, by the folder with its metadata.
#[derive(Debug, Clone)]
pub struct Distribution {
    pub name: String,
    pub version: String,
    pub folder: PathBuf,
}

impl Interpreter {
    /// Runs an interpreter to find its version and packages.
    pub async fn inspect(python: &Path) -> Result<Self, BuildError> {
        let failed = |why: String| {
            BuildError(format!(
                "the interpreter {} does not run: {why}\nIf it is a script that looks for the interpreter, start the \
                 server with --python and the path that `python3 -c 'import sys; print(sys.executable)'` prints",
                python.display()
            ))
        };
        let output = Command::new(python)
            .args(["-I", "-c", QUESTION])
            .env_clear()
            .env("PATH", python.parent().map(Path::to_owned).unwrap_or_default())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(format!("{} ({})", output.status, printed(&output))));
        }
        let answer = serde_json::from_slice::<(String, Vec<PathBuf>)>(&output.stdout);
        let (version, sites) =
            answer.map_err(|_| failed(format!("it does not answer as Python does ({})", printed(&output))))?;
        Ok(Self { python: python.to_owned(), version, sites })
    }

    /// The version without its last part.
    pub fn series(&self) -> &str {
        self.version.rsplit_once('.').map_or(self.version.as_str(), |(series, _)| series)
    }

    /// Whether it suits where `wanted` is asked for. The SDK turns 3.11 into 3.11.12, so the last part may be a guess.
    pub fn is_of(&self, wanted: &str) -> bool {
        let (mut ours, mut theirs) = (self.version.split('.'), wanted.split('.'));
        (0..2).all(|_| theirs.next().is_none_or(|part| ours.next() == Some(part)))
    }

    /// The installed packages; of several versions, the one that is imported.
    pub fn distributions(&self) -> Vec<Distribution> {
        let mut found: Vec<Distribution> = Vec::new();
        for folder in self.sites.iter().flat_map(|site| distributions_in(site)) {
            if !found.iter().any(|other| other.name == folder.name) {
                found.push(folder);
            }
        }
        found
    }

    /// Changes whenever the interpreter or its packages do.
    pub fn identity(&self) -> String {
        let mut installed: Vec<String> =
            self.distributions().iter().map(|found| format!("{}=={}", found.name, found.version)).collect();
        installed.sort();
        hex::encode(Sha256::digest(format!("{}\0{}\0{installed:?}", self.python.display(), self.version)))
    }
}

/// The output of a process, in words.
fn printed(output: &Output) -> String {
    let text = [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text).trim().to_owned());
    match text.join("\n").trim() {
        "" => "it printed nothing".to_owned(),
        text => format!("it printed: {text}"),
    }
}

/// The packages that have metadata in a folder.
pub fn distributions_in(site: &Path) -> Vec<Distribution> {
    let entries = fs::read_dir(site).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let described = |folder: PathBuf| {
        let (name, version) = folder.file_name()?.to_str()?.strip_suffix(".dist-info")?.split_once('-')?;
        Some(Distribution { name: normal_name(name), version: version.to_owned(), folder })
    };
    entries.filter_map(described).collect()
}

/// The normalized name of a package, which is the same for all spellings.
pub fn normal_name(name: &str) -> String {
    name.to_ascii_lowercase().split(['-', '_', '.']).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_versions_match_by_major_and_minor() {
        let python = Interpreter { python: PathBuf::new(), version: "3.11.7".into(), sites: Vec::new() };
        assert_eq!(python.series(), "3.11");
        assert!(["3", "3.11", "3.11.7", "3.11.12"].iter().all(|wanted| python.is_of(wanted)));
        assert!(["3.1", "3.12", "2.7", "3.12.7"].iter().all(|wanted| !python.is_of(wanted)));
    }
}
