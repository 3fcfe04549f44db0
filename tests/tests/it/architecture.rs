//! The walls between the crates, with the reason for each.

use std::collections::BTreeSet;

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
    assert_eq!(names, ["/modal.rs"], "another target than Local Modal must not need changes all over the daemon");
}
