//! DAG files and DAGs for several hands: changed only as they were read, listed in pages, and told of.

use std::fs;

use integration_tests::{Installation, dag_file, eventually, text};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::api::Api;

const DAGS: &str = "/v1/environments/dev/dags";
const FILE: &str = "/v1/environments/dev/dags/files/pair.py";

async fn send_if(api: &Api, (method, path): (Method, &str), etag: &str, body: &str) -> Response {
    let request = api.http.request(method, format!("http://localhost{path}")).header("if-match", etag);
    request.header("content-type", "application/json").body(body.to_owned()).send().await.expect("an answer")
}

async fn etag(api: &Api, path: &str) -> String {
    let read = api.send(Method::GET, path, None).await;
    assert_eq!(read.status(), 200, "{path}");
    read.headers()["etag"].to_str().expect("text").to_owned()
}

/// The events, one after the other.
struct Told<'a> {
    api: &'a Api,
    last: String,
}

impl Told<'_> {
    /// What the next event of a kind says.
    async fn next(&mut self, kind: &str) -> Value {
        let event = self.api.events(&self.last, kind).await.pop().expect("an event");
        self.last = event["id"].to_string();
        event["data"].clone()
    }
}

fn filenames(list: &Value) -> Vec<&str> {
    list["files"].as_array().expect("files").iter().map(|file| text(&file["filename"])).collect()
}

#[tokio::test]
async fn dag_files_are_updated_by_etag_paged_and_reported_as_events() {
    let it = Installation::with_dev(3600);
    let api = Api::new(&it);
    let pair = fs::read_to_string(dag_file("pair.py")).expect("a file");
    let other = format!("{pair}\n# Changed.\n");

    // A file is changed and removed only as it was read.
    let create = format!("{FILE}?mode=create");
    let update = format!("{FILE}?mode=update");
    assert_eq!(send_if(&api, (Method::PUT, &create), "*", &pair).await.status(), 412, "nothing was read");
    assert_eq!(api.send(Method::PUT, &create, Some(&pair)).await.status(), 200);
    let first = etag(&api, FILE).await;
    assert_eq!(send_if(&api, (Method::PUT, &update), &first, &other).await.status(), 200);
    let late = send_if(&api, (Method::PUT, &update), &first, &pair).await;
    assert_eq!(late.status(), 412);
    let problem: Value = late.json().await.expect("JSON");
    assert_eq!(problem["type"], "urn:airflow-serverless:problem:precondition-failed", "{problem}");
    assert_eq!(api.send(Method::GET, FILE, None).await.text().await.expect("text"), other, "nothing was lost");
    assert_eq!(send_if(&api, (Method::DELETE, FILE), &first, "").await.status(), 412);

    // So are DAGs.
    it.run_dag("left_of_pair", &[]).0.succeeded();
    let dag = format!("{DAGS}/left_of_pair");
    let read = etag(&api, &dag).await;
    assert_eq!(send_if(&api, (Method::PATCH, &dag), &read, r#"{"is_paused": true}"#).await.status(), 200);
    assert_eq!(send_if(&api, (Method::PATCH, &dag), &read, r#"{"is_paused": false}"#).await.status(), 412);
    assert_eq!(send_if(&api, (Method::DELETE, &dag), &read, "").await.status(), 412);

    // A folder that is watched, with a file that does not import.
    let watched = it.root().join("dags");
    fs::create_dir(&watched).expect("a folder");
    let warned =
        "import warnings\nfrom airflow.sdk import DAG\nwarnings.warn('mind this')\nDAG('watched', schedule=None)\n";
    fs::write(watched.join("watched.py"), warned).expect("a file");
    it.cli(&["watch", "add", &watched.display().to_string(), "--env", "dev"]).succeeded();
    let mut told = Told { api: &api, last: "0".to_owned() };
    for _ in ["created", "updated"] {
        assert_eq!(told.next("dag_files.uploaded").await["filenames"], json!(["pair.py"]));
    }
    let uploaded = told.next("dag_files.uploaded").await;
    assert_eq!((&uploaded["filenames"], &uploaded["total_entries"]), (&json!(["watched.py"]), &json!(1)));
    let [warning] = uploaded["warnings"].as_array().expect("warnings").as_slice() else { panic!("{uploaded}") };
    eventually("the same warning in the list", || {
        let listed = it.cli(&["watch", "list", "--json"]).succeeded().json();
        (listed["watches"][0]["warnings"] == uploaded["warnings"]).then_some(())
    });
    assert!(text(&warning["message"]).contains("mind this") && warning["file"] == "watched.py", "{warning}");
    fs::write(watched.join("broken.py"), "import nothing_of_this_name  # a DAG\n").expect("a file");
    assert_eq!(told.next("watch.state").await["state"], "invalid");
    fs::remove_file(watched.join("broken.py")).expect("it was there");
    assert_eq!(told.next("watch.state").await["state"], "in_sync");

    // Lists come in pages, and of what is asked for.
    it.upload("greeting.py");
    let all = api.json(Method::GET, DAGS, None).await;
    assert_eq!(filenames(&all), ["greeting.py", "pair.py", "watched.py"]);
    let page = api.json(Method::GET, &format!("{DAGS}?limit=1&offset=1"), None).await;
    assert_eq!((filenames(&page), &page["total_entries"]), (vec!["pair.py"], &json!(3)));
    let paused = api.json(Method::GET, &format!("{DAGS}?paused=true&dag_id_pattern=PAIR"), None).await;
    assert_eq!(filenames(&paused), ["pair.py"]);
    assert_eq!(paused["files"][0]["dags"].as_array().expect("DAGs").len(), 1, "{paused}");
    assert_eq!(api.problem(Method::GET, &format!("{DAGS}?limit=0"), None).await, (400, "invalid-request".to_owned()));

    // Files with one DAG id are named, also if they come together and the scheduler has parsed neither.
    let twin = "from airflow.sdk import DAG\ndag = DAG('NAME', schedule=None)\n";
    let put = async |name: &str, dag_id: &str| {
        let path = format!("{DAGS}/files/{name}.py?mode=create");
        api.json(Method::PUT, &path, Some(&twin.replace("NAME", dag_id))).await
    };
    assert_eq!(put("anna", "sister").await["warnings"], json!([]));
    let second = put("berta", "sister").await;
    let words = "berta.py and anna.py both define DAG sister: the one ";
    assert!(second["warnings"][0].as_str().is_some_and(|it| it.starts_with(words)), "{second}");
    let batch = it.root().join("batch");
    fs::create_dir(&batch).expect("a folder");
    for name in ["one", "two"] {
        fs::write(batch.join(name).with_extension("py"), twin.replace("NAME", "brother")).expect("a file");
    }
    fs::rename(&batch, watched.join("batch")).expect("moved");
    let uploaded = loop {
        let uploaded = told.next("dag_files.uploaded").await;
        if uploaded["watch_id"] != Value::Null {
            break uploaded;
        }
    };
    assert_eq!(uploaded["filenames"], json!(["batch/one.py", "batch/two.py"]));
    let words = "batch/two.py and batch/one.py both define DAG brother: the one ";
    let message = &uploaded["warnings"][0]["message"];
    let is_told = message.as_str().is_some_and(|it| it.starts_with(words));
    assert!(uploaded["warnings"][0]["file"] == "batch/two.py" && is_told, "{uploaded}");
    let shown = it.cli(&["watch", "list"]).succeeded().stdout;
    assert!(shown.contains(&format!("warning: batch/two.py: {words}")) && !shown.contains("DAG sister"), "{shown}");
    // With a file that came another way, and no more once it is another DAG.
    assert_eq!(put("clara", "brother").await["warnings"].as_array().map(Vec::len), Some(2));
    fs::write(watched.join("batch/two.py"), twin.replace("NAME", "cousin")).expect("a file");
    let uploaded = loop {
        let uploaded = told.next("dag_files.uploaded").await;
        if uploaded["filenames"] == json!(["batch/two.py"]) {
            break uploaded;
        }
    };
    assert_eq!(uploaded["warnings"], json!([]));
    let shown = it.cli(&["watch", "list"]).succeeded().stdout;
    assert!(shown.contains("clara.py and batch/one.py both") && !shown.contains("batch/two.py and"), "{shown}");

    assert_eq!(send_if(&api, (Method::DELETE, FILE), &etag(&api, FILE).await, "").await.status(), 200);
    assert_eq!(told.next("dag_files.removed").await["filenames"], json!(["pair.py"]));

    // With the environment its watches go; what is saved then is nobody's business.
    it.dev("env delete", &["--yes"]).succeeded();
    fs::write(watched.join("watched.py"), "late = True\n").expect("a file");
    assert_eq!(it.cli(&["watch", "list", "--json"]).succeeded().json()["total_entries"], 0);
    assert!(fs::read_dir(&watched).is_ok_and(|mut files| files.next().is_some()), "its folder is not the daemon's");
}
