//! The walls between the crates, with the reason for each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use cargo_metadata::{DepKindInfo, DependencyKind, Metadata, MetadataCommand};

/// (crate, what must not be in it, not even by way of another crate, why)
const WALLS: &[(&str, &[&str], &str)] = &[
    (
        "airflow-serverless-api",
        &["tokio", "reqwest", "axum", "sqlx", "hyper"],
        "wire types do no I/O, so that anything can use them",
    ),
    (
        "airflow-serverless",
        &["airflowd", "modal-client", "modal-emulator", "modal-proto", "axum", "sqlx"],
        "the CLI knows the daemon by its REST API alone, like any other client",
    ),
    ("airflowd", &["airflow-serverless"], "the daemon has many clients and knows none of them"),
    (
        "modal-client",
        &["modal-emulator", "airflow-serverless-api", "airflow-serverless", "airflowd"],
        "a client that knew its server could not be trusted to speak to another one",
    ),
    (
        "modal-emulator",
        &["modal-client", "airflow-serverless-api", "airflow-serverless", "airflowd"],
        "Local Modal serves any Modal app; it knows nothing of Airflow",
    ),
    (
        "sqlite-schema",
        &["modal-proto", "modal-client", "modal-emulator", "airflow-serverless-api", "airflow-serverless", "airflowd"],
        "what keeps a database safe knows nothing of what is in it",
    ),
    (
        "socket-path",
        &["modal-proto", "modal-client", "modal-emulator", "airflow-serverless-api", "airflow-serverless", "airflowd"],
        "how a socket is reached has nothing to do with what is said there",
    ),
    (
        "modal-proto",
        &["modal-client", "modal-emulator", "airflow-serverless-api", "airflow-serverless", "airflowd"],
        "the protocol is a leaf",
    ),
];

/// The modules of the daemon, from the ground up. A module uses those of lower floors only, so that each can be read
/// without those above it.
const FLOORS: &[&[&str]] = &[
    &["backoff", "model", "locks", "loopback", "metrics", "notify", "progress", "regular_file", "report"],
    &["private_file"],
    &["settings", "store", "token"],
    &["logging", "modal"],
    &["runtime"],
    &["error"],
    &["events", "vault"],
    &["base"],
    &["registry"],
    &["airflow"],
    &["background", "diagnostics", "watcher"],
    &["http"],
    &["listeners"],
    &["lifecycle"],
];

/// What each crate is built of, dependencies of dependencies included; those of tests and build scripts do not count.
fn reached<'a>(metadata: &'a Metadata, name: &str) -> BTreeSet<&'a str> {
    let resolve = metadata.resolve.as_ref().expect("the resolved graph");
    let root = metadata.workspace_packages().into_iter().find(|package| package.name == name).expect(name);
    let (mut found, mut ahead) = (BTreeSet::new(), vec![&root.id]);
    while let Some(id) = ahead.pop() {
        let is_built_in = |kind: &DepKindInfo| kind.kind == DependencyKind::Normal;
        let dependencies = resolve[id].deps.iter().filter(|dependency| dependency.dep_kinds.iter().any(is_built_in));
        for dependency in dependencies {
            if found.insert(metadata[&dependency.pkg].name.as_str()) {
                ahead.push(&dependency.pkg);
            }
        }
    }
    found
}

#[test]
fn crates_keep_to_their_side() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    // What other systems need is not fetched for this.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let options = ["--locked".to_owned(), "--filter-platform".to_owned(), platform];
    let metadata =
        MetadataCommand::new().manifest_path(manifest).other_options(options).exec().expect("cargo metadata");
    for (name, forbidden, reason) in WALLS {
        let reached = reached(&metadata, name);
        for wall in *forbidden {
            assert!(!reached.contains(wall), "{name} depends on {wall}: {reason}");
        }
    }
    let daemon = metadata.packages.iter().find(|package| package.name == "airflowd").expect("the daemon");
    let speaks_itself = daemon.dependencies.iter().any(|dependency| dependency.name == "modal-proto");
    assert!(!speaks_itself, "the daemon speaks to Modal through its typed client");
}

#[test]
fn only_one_module_knows_the_emulator() {
    let daemon = concat!(env!("CARGO_MANIFEST_DIR"), "/../daemon/src");
    let output =
        std::process::Command::new("grep").args(["-rl", "modal_emulator", daemon]).output().expect("grep runs");
    let files = String::from_utf8(output.stdout).expect("text");
    let names: Vec<_> = files.lines().map(|line| line.trim_start_matches(daemon)).collect();
    let all_inside = !names.is_empty() && names.iter().all(|name| name.starts_with("/modal/"));
    assert!(all_inside, "{names:?}: another target than Local Modal must not need changes all over the daemon");
}

/// The top modules that code names by `crate::…`, tests and comments left out.
fn used_modules(code: &str) -> BTreeSet<String> {
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let code: String = code.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let name = |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let mut used = BTreeSet::new();
    for (start, path) in code.match_indices("crate::") {
        let rest = &code[start + path.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            used.insert(name(rest));
            continue;
        };
        let (mut depth, mut is_first) = (1, true);
        for (position, character) in list.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 1 => break,
                '}' => depth -= 1,
                ',' if depth == 1 => is_first = true,
                _ if depth == 1 && is_first && !character.is_whitespace() => {
                    used.insert(name(&list[position..]));
                    is_first = false;
                }
                _ => {}
            }
        }
    }
    // What is left are names of the crate itself, such as its versions.
    used.retain(|name| name.starts_with(|c: char| c.is_lowercase()));
    used
}

fn rust_files(path: &Path) -> Vec<std::path::PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| rust_files(&path)).collect()
}

#[test]
fn modules_of_the_daemon_use_lower_floors_only() {
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../daemon/src"));
    let floor_of: BTreeMap<&str, usize> =
        FLOORS.iter().enumerate().flat_map(|(floor, names)| names.iter().map(move |name| (*name, floor))).collect();
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(source).expect("the daemon's source") {
        let path = entry.expect("an entry").path();
        let module = path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
        if matches!(module.as_str(), "lib" | "main") {
            continue;
        }
        let own = *floor_of.get(module.as_str()).unwrap_or_else(|| panic!("{module} has no floor"));
        for file in rust_files(&path) {
            for used in used_modules(&fs::read_to_string(&file).expect("a file")) {
                let floor = *floor_of.get(used.as_str()).unwrap_or_else(|| panic!("{used} has no floor"));
                assert!(used == module || floor < own, "{} uses {used}, which is not below {module}", file.display());
            }
        }
        seen.insert(module);
    }
    let known: BTreeSet<String> = floor_of.keys().map(|name| (*name).to_owned()).collect();
    assert_eq!(seen, known, "floors of modules that there are not");
}

#[test]
fn uses_of_modules_are_found() {
    let code = "use crate::{\n    a::{B, C},\n    d,\n    VERSION,\n};\nuse crate::e::F;\nfn f() { crate::g::h() } // crate::i\n\
                #[cfg(test)]\nuse crate::j;";
    assert_eq!(used_modules(code).into_iter().collect::<Vec<_>>(), ["a", "d", "e", "g"]);
}
