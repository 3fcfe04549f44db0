//! The commands of the README's section "By hand", as they stand there.

use std::{fs, process::Command};

use integration_tests::{Installation, runtimes, workspace};

#[test]
fn the_commands_by_hand_run_as_written() {
    let readme = fs::read_to_string(workspace().join("README.md")).expect("the README");
    let (_, section) = readme.split_once("\n## By hand\n").expect("the section");
    let (_, block) = section.split_once("```sh\n").expect("a block");
    let (commands, _) = block.split_once("```").expect("its end");
    let it = Installation::new();
    // As on the machine of somebody who has set nothing: all of the daemon's places are in the home.
    let command = |program: &str| {
        let mut command = Command::new(program);
        command.current_dir(workspace()).env_clear().env("HOME", it.user_home());
        command.env("AIRFLOW_SERVERLESS_RUNTIMES", runtimes()).env("PATH", std::env::var_os("PATH").expect("a PATH"));
        command
    };
    let done = command("sh").args(["-eux", "-c", commands]).output().expect("a shell");
    let (stdout, stderr) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let program = it.program("airflow-serverless");
    let stopped = command(program.to_str().expect("text")).args(["daemon", "stop"]).output().expect("the CLI runs");
    assert!(done.status.success() && stopped.status.success(), "{stdout}\n{stderr}\n{stopped:?}");
    for part in
        ["etl.py uploaded", "Total order value", "1 task cleared", "region", "watched for dev;", "airflowd stopped"]
    {
        assert!(stdout.contains(part), "no {part:?} in\n{stdout}\n{stderr}");
    }
}
