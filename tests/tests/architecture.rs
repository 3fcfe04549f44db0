//! The walls between the crates, with the reason for each.

use cargo_metadata::{DependencyKind, MetadataCommand};

/// (crate, what it must not depend on, why)
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
    ("airflowd", &["airflow-serverless", "modal-proto"], "the daemon speaks to Modal through its typed client"),
    (
        "modal-client",
        &["modal-emulator", "airflow-serverless-api", "airflowd"],
        "a client that knew its server could not be trusted to speak to another one",
    ),
    (
        "modal-emulator",
        &["modal-client", "airflow-serverless-api", "airflow-serverless", "airflowd"],
        "Local Modal serves any Modal app; it knows nothing of Airflow",
    ),
    (
        "modal-proto",
        &["modal-client", "modal-emulator", "airflow-serverless-api", "airflowd", "tokio"],
        "the protocol is a leaf",
    ),
];

#[test]
fn crates_keep_to_their_side() {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata");
    for (name, forbidden, reason) in WALLS {
        let package = metadata.packages.iter().find(|package| package.name == *name).expect(name);
        let normal = package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
        for dependency in normal {
            assert!(!forbidden.contains(&dependency.name.as_str()), "{name} depends on {}: {reason}", dependency.name);
        }
    }
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
