//! The rules of which crates and modules depend on which, with the reason for each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    iter::Peekable,
    path::Path,
    str::Chars,
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

/// The modules of the daemon, the lowest layer first. A module uses those of lower layers only, so that each can be read
/// without those above it.
const DAEMON_LAYERS: &[&[&str]] = &[
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

/// The modules of the command line, likewise.
const CLIENT_LAYERS: &[&[&str]] = &[
    &["error", "home_lock"],
    &["cli", "input_file", "printer", "service"],
    &["browser", "config", "daemon", "logs"],
    &["daemon_status", "follow", "stream"],
    &["explain", "start"],
    &["session"],
    &["commands"],
];

/// The modules of the emulator. A module inside another one is listed if it is in a lower layer than the rest of that one.
const EMULATOR_LAYERS: &[&[&str]] = &[
    &["counts", "endpoints::ports", "faults", "ids", "logs", "process", "runtime", "store", "subscriptions"],
    &["error", "options"],
    &["files", "images::error", "state", "token"],
    &["images::interpreter", "images::log", "streams", "volumes"],
    &["images::builds", "views", "web"],
    &["shared"],
    &["admin", "endpoints", "health", "images"],
    &["containers", "sweep"],
    &["driver", "interceptor"],
    &["rpc"],
    &["server"],
    &["emulator"],
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
fn crates_do_not_depend_on_forbidden_crates() {
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
fn only_the_modal_module_uses_the_emulator() {
    let daemon = concat!(env!("CARGO_MANIFEST_DIR"), "/../daemon/src");
    let output =
        std::process::Command::new("grep").args(["-rl", "modal_emulator", daemon]).output().expect("grep runs");
    let files = String::from_utf8(output.stdout).expect("text");
    let names: Vec<_> = files.lines().map(|line| line.trim_start_matches(daemon)).collect();
    let all_inside = !names.is_empty() && names.iter().all(|name| name.starts_with("/modal/"));
    assert!(all_inside, "{names:?}: another target than Local Modal must not need changes all over the daemon");
}

/// The paths of other modules that code names by `crate::`, `super::` or `self::`, from the root of the crate, tests and
/// comments left out. `module` is where the code is.
fn used_paths(module: &[String], code: &str) -> BTreeSet<Vec<String>> {
    let code = code.split("\nmod tests {").next().unwrap_or_default();
    let code: String = code.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let mut used = BTreeSet::new();
    for (start, _) in ["crate::", "super::", "self::"].iter().flat_map(|keyword| code.match_indices(keyword)) {
        if code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let mut paths = Vec::new();
        expand(&mut code[start..].chars().peekable(), &[], &mut paths);
        used.extend(paths.iter().map(|path| resolve(module, path)));
    }
    // Names of the crate itself, such as its version, are in no module.
    used.retain(|path| path.first().is_some_and(|name| name.starts_with(|c: char| c.is_lowercase())));
    used
}

/// Adds the paths of a tree such as `a::{b, c::D}` to `found`.
fn expand(rest: &mut Peekable<Chars<'_>>, prefix: &[String], found: &mut Vec<Vec<String>>) {
    let mut path = prefix.to_vec();
    loop {
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        if rest.next_if_eq(&'{').is_some() {
            loop {
                expand(rest, &path, found);
                while rest.next_if(|c| !matches!(c, ',' | '}')).is_some() {}
                if rest.next() != Some(',') {
                    return;
                }
            }
        }
        let mut name = String::new();
        while let Some(c) = rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
        }
        if !name.is_empty() {
            path.push(name);
        }
        if rest.next_if_eq(&':').is_none() || rest.next_if_eq(&':').is_none() {
            found.push(path);
            return;
        }
    }
}

/// A path from the root of the crate, for one that begins with `crate`, `super` or `self` in a module.
fn resolve(module: &[String], path: &[String]) -> Vec<String> {
    let mut resolved = module.to_vec();
    for name in path {
        match name.as_str() {
            "crate" => resolved.clear(),
            "super" => drop(resolved.pop()),
            "self" => {}
            name => resolved.push(name.to_owned()),
        }
    }
    resolved
}

fn rust_files(path: &Path) -> Vec<std::path::PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path());
    let found = entries.flat_map(|path| rust_files(&path));
    found.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// Fails if a module of a crate is in no layer, or uses one that is not in a lower layer.
fn check_layers(source: &Path, layers: &[&[&str]]) {
    let layer_of: BTreeMap<&str, usize> =
        layers.iter().enumerate().flat_map(|(layer, names)| names.iter().map(move |name| (*name, layer))).collect();
    // The innermost module of a path that is in a layer.
    let find = |path: &[String]| {
        let prefixes = (1..=path.len()).rev().map(|length| path[..length].join("::"));
        prefixes.filter_map(|name| layer_of.get_key_value(name.as_str())).next()
    };
    let mut seen = BTreeSet::new();
    for file in rust_files(source) {
        let inside = file.strip_prefix(source).expect("a path inside").with_extension("");
        let mut module: Vec<String> = inside.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        if module.last().is_some_and(|name| name == "mod") {
            module.pop();
        }
        if matches!(module[0].as_str(), "lib" | "main") || module.iter().any(|name| name == "tests") {
            continue;
        }
        let (own, layer) = find(&module).unwrap_or_else(|| panic!("{} is in no layer", file.display()));
        for path in used_paths(&module, &fs::read_to_string(&file).expect("a file")) {
            let (used, below) = find(&path).unwrap_or_else(|| panic!("{} is in no layer", path.join("::")));
            let is_lower = used == own || below < layer;
            assert!(is_lower, "{} uses {used}, which is not in a lower layer than {own}", file.display());
        }
        seen.insert(*own);
    }
    assert_eq!(seen, layer_of.keys().copied().collect(), "layers have modules that do not exist");
}

#[test]
fn modules_of_the_daemon_use_lower_layers_only() {
    check_layers(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../daemon/src")), DAEMON_LAYERS);
}

#[test]
fn modules_of_the_client_use_lower_layers_only() {
    check_layers(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../client/src")), CLIENT_LAYERS);
}

#[test]
fn modules_of_the_emulator_use_lower_layers_only() {
    check_layers(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../modal/emulator/src")), EMULATOR_LAYERS);
}

#[test]
fn used_paths_are_parsed() {
    let code = "use super::i::J;\npub use self::{k::L, m};\n\
                use crate::{\n    a::{B, C},\n    d,\n    e::{self, f::G},\n    VERSION,\n};\n\
                fn f() { crate::g::h::<T>() } // crate::n\nmod tests {\nuse crate::o;";
    let module = ["x".to_owned(), "y".to_owned()];
    let found: Vec<String> = used_paths(&module, code).iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["a::B", "a::C", "d", "e", "e::f::G", "g::h", "x::i::J", "x::y::k::L", "x::y::m"]);
}
