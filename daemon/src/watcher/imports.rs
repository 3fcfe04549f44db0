//! Finds what a Python file imports, and which files a change may break. Parses the text without running it, and finds
//! too many imports rather than too few.

use std::collections::{BTreeSet, HashMap};

use super::local::{Locals, Role};
use crate::{airflow::PLUGINS, model::Name};

/// Returns the modules that a file imports, separated by spaces. `from a import b` may mean the module `a.b`: both
/// count.
pub fn imports(path: &str, content: &[u8]) -> Box<str> {
    if !path.ends_with(".py") {
        return "".into();
    }
    let text = String::from_utf8_lossy(content);
    let mut found = BTreeSet::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        for part in line.split(';') {
            let part = part.trim_start();
            if let Some(rest) = part.strip_prefix("import ").or_else(|| part.strip_prefix("import\t")) {
                found.extend(listed(&joined(rest, &mut lines)));
            } else if let Some(rest) = part.strip_prefix("from ").or_else(|| part.strip_prefix("from\t")) {
                from(path, &joined(rest, &mut lines), &mut found);
            }
        }
    }
    // User modules never have the name of Airflow's package.
    found.retain(|module| module != "airflow" && !module.starts_with("airflow."));
    found.into_iter().collect::<Vec<_>>().join(" ").into()
}

/// Joins a statement with its continuation lines.
fn joined<'a>(start: &str, lines: &mut impl Iterator<Item = &'a str>) -> String {
    let mut statement = without_comment(start).to_owned();
    for _ in 0..1_000 {
        let is_open = statement.contains('(') && !statement.contains(')');
        if !is_open && !statement.ends_with('\\') {
            break;
        }
        let Some(next) = lines.next() else { break };
        statement.truncate(statement.trim_end_matches('\\').len());
        statement.push(' ');
        statement.push_str(without_comment(next));
    }
    statement
}

fn without_comment(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim_end()
}

/// Returns the names in `a.b as c, d`.
fn listed(text: &str) -> Vec<String> {
    let first = |item: &str| item.split_whitespace().next().unwrap_or_default().to_owned();
    let is_name =
        |name: &String| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'));
    text.split([',', '(', ')']).map(first).filter(is_name).collect()
}

fn from(path: &str, statement: &str, found: &mut BTreeSet<String>) {
    let Some((module, names)) = statement.split_once("import") else { return };
    let module = module.trim();
    let dots = module.len() - module.trim_start_matches('.').len();
    let mut base: Vec<&str> = match dots {
        0 => Vec::new(),
        // One dot is the package of the file; each further dot is one package up.
        _ => {
            let mut package: Vec<&str> = path.split('/').collect();
            package.truncate(package.len().saturating_sub(dots));
            package
        }
    };
    base.extend(module[dots..].split('.').filter(|part| !part.is_empty()));
    let base = base.join(".");
    for name in listed(names) {
        found.insert(if base.is_empty() { name } else { format!("{base}.{name}") });
    }
    if !base.is_empty() {
        found.insert(base);
    }
}

/// Returns the names under which a file can be imported. Files in the plugin folder also have one without its name.
fn modules(path: &str) -> Vec<String> {
    let Some(module) = path.strip_suffix(".py") else { return Vec::new() };
    let module = module.strip_suffix("/__init__").unwrap_or(module);
    let own = module.strip_prefix(PLUGINS).map(|rest| rest.replace('/', "."));
    std::iter::once(module.replace('/', ".")).chain(own).collect()
}

/// Returns the folder of a file, with a trailing slash unless it is the root.
fn folder_of(path: &str) -> &str {
    path.rfind('/').map_or("", |end| &path[..=end])
}

/// The import graph. The requirements file of a DAG file counts as imported by it.
pub struct Graph {
    /// {file: the files that it imports}
    imported: HashMap<Name, Vec<Name>>,
    /// {file: the files that import it}
    importing: HashMap<Name, Vec<Name>>,
}

impl Graph {
    /// Builds the graph of the files in the folder and of those that are `gone` but still on the Volume.
    pub fn new(locals: &Locals, gone: &[Name]) -> Self {
        let mut places: HashMap<String, Vec<Name>> = HashMap::new();
        for path in locals.keys().chain(gone) {
            for module in modules(path) {
                places.entry(module).or_default().push(path.clone());
            }
        }
        let mut graph = Self { imported: HashMap::new(), importing: HashMap::new() };
        for (path, local) in locals {
            let mut targets = BTreeSet::new();
            for module in local.imports.split(' ').filter(|module| !module.is_empty()) {
                // Importing `a.b` also runs `a/__init__.py`.
                let ends = module.match_indices('.').map(|(end, _)| end).chain([module.len()]);
                targets.extend(ends.filter_map(|end| places.get(&module[..end])).flatten().cloned());
            }
            targets.remove(path);
            if local.role == Role::Dags {
                let requirements = format!("{}requirements.txt", folder_of(path));
                let found = locals.get_key_value(&*requirements).map(|(name, _)| name);
                targets.extend(found.or_else(|| gone.iter().find(|name| ***name == *requirements)).cloned());
            }
            for target in &targets {
                graph.importing.entry(target.clone()).or_default().push(path.clone());
            }
            graph.imported.insert(path.clone(), targets.into_iter().collect());
        }
        graph
    }

    /// Returns all direct and indirect importers of these files; excludes the files themselves unless they import each
    /// other.
    pub fn dependents<'a>(&self, of: impl IntoIterator<Item = &'a Name>) -> BTreeSet<Name> {
        reach(&self.importing, of)
    }

    /// Whether another file imports this one.
    pub fn is_imported(&self, path: &Name) -> bool {
        self.importing.contains_key(path)
    }

    /// Returns all direct and indirect imports of a file.
    pub fn dependencies(&self, of: &Name) -> BTreeSet<Name> {
        reach(&self.imported, [of])
    }
}

fn reach<'a>(edges: &HashMap<Name, Vec<Name>>, from: impl IntoIterator<Item = &'a Name>) -> BTreeSet<Name> {
    let mut reached = BTreeSet::new();
    let mut ahead: Vec<Name> = from.into_iter().cloned().collect();
    while let Some(file) = ahead.pop() {
        for next in edges.get(&file).into_iter().flatten() {
            if reached.insert(next.clone()) {
                ahead.push(next.clone());
            }
        }
    }
    reached
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        model::Stamp,
        watcher::local::{Local, Role},
    };

    /// Builds a folder of files with these contents.
    pub fn folder(files: &[(&str, &str)]) -> Locals {
        let local = |path: &str, text: &str| Local {
            stamp: Stamp::default(),
            sha256: [0; 32],
            imports: imports(path, text.as_bytes()),
            role: Role::Dags,
        };
        files.iter().map(|(path, text)| ((*path).into(), local(path, text))).collect()
    }

    #[test]
    fn imports_are_found_in_the_source_text() {
        let text = "import os, a.b as c  # x\nfrom d import (e,\n    f as g,  # y\n)\nif x:\n    from airflow.sdk import DAG\n\
                    from . import sibling\nfrom ..above import thing; import last\nfrom h \\\n  import i\nimportant = 1\n";
        let expected = "a.b d d.e d.f h h.i last os pkg.above pkg.above.thing pkg.sub pkg.sub.sibling";
        assert_eq!(&*imports("pkg/sub/m.py", text.as_bytes()), expected);
        assert_eq!(&*imports("m.py", b"from . import sibling\nfrom x import *\n"), "sibling x");
        assert_eq!(&*imports("m.sql", b"import x"), "");
    }

    #[test]
    fn dependents_and_dependencies_are_transitive() {
        let locals = folder(&[
            ("etl.py", "from lib.names import NAME"),
            ("lib/__init__.py", ""),
            ("lib/names.py", "from .deep import x"),
            ("lib/deep.py", ""),
            ("other.py", "import json"),
            ("quarter.py", "from calendar_of_ours import Quarter"),
            ("plugins/calendar_of_ours.py", ""),
            ("uses_gone.py", "import gone"),
            ("team/report.py", ""),
            ("team/requirements.txt", ""),
        ]);
        let graph = Graph::new(&locals, &["gone.py".into()]);
        let dependents =
            |path: &str| graph.dependents(&[path.into()]).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(dependents("lib/deep.py"), ["etl.py", "lib/names.py"]);
        assert_eq!(dependents("lib/__init__.py"), ["etl.py", "lib/names.py"]);
        assert_eq!(dependents("plugins/calendar_of_ours.py"), ["quarter.py"]);
        assert_eq!(dependents("gone.py"), ["uses_gone.py"]);
        assert!(dependents("other.py").is_empty());
        assert_eq!(dependents("team/requirements.txt"), ["team/report.py", "team/requirements.txt"]);
        let dependencies: Vec<_> = graph.dependencies(&"etl.py".into()).iter().map(ToString::to_string).collect();
        assert_eq!(dependencies, ["lib/__init__.py", "lib/deep.py", "lib/names.py"]);
    }
}
