//! A home whose path is longer than the address of a Unix socket: all of it works as elsewhere.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
};

use integration_tests::{Installation, dag_file, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[test]
fn home_path_of_any_length_works() {
    let it = Installation::below(&format!("{}/{}", "h".repeat(180), "o".repeat(180)));
    let home = it.home();
    assert!(home.as_os_str().len() > 300);
    it.create_dev(60).succeeded();
    let place = it.home().join("run/airflowd.sock");
    assert!(it.log().contains(place.to_str().expect("text")), "the log does not name the socket");

    it.dev("dags create", &["--file", dag_file("greeting.py").to_str().expect("text")]).succeeded();
    let (done, run) = it.run_dag("greeting", &[]);
    done.succeeded();
    assert_eq!(run["state"], "success");
    assert!(it.task_log(&run, "greet", &[]).contains("hello"));
    it.cli(&["doctor"]).succeeded();

    let data = home.join("data/modal");
    let modal_local = |arguments: &[&str]| {
        let output = Command::new(it.program("modal-local")).args(arguments).arg("--data-dir").arg(&data).output();
        output.expect("modal-local runs")
    };
    let status = modal_local(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_else(|_| panic!("no status: {status:#?}"));
    assert_eq!(status["data_dir"], data.to_str().expect("text"));
    let exported = String::from_utf8(modal_local(&["env"]).stdout).expect("text");
    assert!(exported.contains(text(&status["server_url"])), "{exported}");

    let mut ui = Command::new(it.program("airflow-serverless"));
    ui.args(["ui", "--env", "dev", "--json"]).envs(it.variables()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut ui = ui.spawn().expect("the CLI runs");
    let mut line = String::new();
    BufReader::new(ui.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let ready: Value = serde_json::from_str(&line).expect("the address of the UI");
    let address = text(&ready["url"]).trim_start_matches("http://");
    let (host, path) = address.split_once('/').expect("a path");
    let mut stream = TcpStream::connect(host).expect("a connection");
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 3") || answer.starts_with("HTTP/1.1 200"), "{answer}");
    kill_process(Pid::from_raw(ui.id().cast_signed()).expect("a process"), Signal::TERM).expect("a signal");
    assert!(ui.wait().expect("its end").success());

    // A socket that a killed daemon leaves behind is replaced, and one that is stopped is gone.
    it.cli(&["daemon", "restart"]).succeeded();
    assert_eq!(it.dev("runs list", &["--dag-id", "greeting", "--json"]).succeeded().json()["total_entries"], 1);
    it.cli(&["daemon", "stop"]).succeeded();
    assert!(!place.exists(), "the socket was left behind");
}
