//! The way to the daemon: its REST API over its Unix socket, one method per operation.

use std::{sync::OnceLock, time::Duration};

use airflow_serverless_api::{
    Problem,
    backfill::{BackfillAction, BackfillDetail, BackfillList, CreateBackfill, DryRunBackfillList, ListBackfills},
    backup::{BackupList, RollBack, RolledBack},
    config::Config,
    cost::{Cost, EstimateCost},
    credentials::{CredentialsStatus, PutCredentials, StoreCredentials},
    daemon::{VERSION_HEADER, Version},
    dag::{
        Dag, DagDeletion, DagDetail, DagFileChange, DagFileDeletion, DagFileList, ImportErrorList, ListDagFiles,
        ListImportErrors, PutMode, UpdateDag,
    },
    diagnostics::Diagnostics,
    environment::{
        CreateEnvironment, DeleteEnvironment, Environment, EnvironmentChange, EnvironmentList, EnvironmentName,
        ListEnvironments, UnregisteredEnvironmentList, UpdateEnvironment,
    },
    home::Home,
    log::{ContainerLogs, ReadContainerLogs},
    operation::{ListOperations, Operation, OperationList},
    page::{Page, Written},
    question::{self, AnswerQuestion, ListQuestions, QuestionList},
    run::{
        ClearDagRun, DagRunDetail, DagRunList, ListDagRuns, ReadLogs, RunMark, TaskLog, TriggerDagRun, UpdateDagRun,
    },
    task::{ClearTaskInstances, ListTaskInstances, TaskInstanceList, UpdateTaskInstance},
    ui::UiList,
    watch::{CreateWatch, ListWatches, Watch, WatchList, WatchRemoval},
};
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use serde::{Serialize, de::DeserializeOwned};
use socket_path::SocketPath;
use uuid::Uuid;

use crate::{
    failure::Failure,
    presence::{self, Presence},
    printer::Printer,
    start,
};

type Result<T, E = Failure> = std::result::Result<T, E>;

/// Longest wait for one answer; the scheduler's limits are shorter.
const ANSWER_LIMIT: Duration = Duration::from_secs(180);
/// Longest wait for a file that is tried, and may need packages that have to be installed first; the daemon's limit is
/// shorter.
const FILE_LIMIT: Duration = Duration::from_secs(390);
/// Longest wait for the version, which costs a daemon that is well nothing.
const VERSION_LIMIT: Duration = Duration::from_secs(10);
/// For answers that go on until somebody ends them.
pub(crate) const NO_LIMIT: Duration = Duration::from_secs(u32::MAX as u64);
/// The largest page of a list.
const PAGE: u32 = Page::LARGEST_LIMIT;
/// The host is not looked up: the socket decides where a request goes.
const BASE: &str = "http://localhost/v1";

pub struct Daemon {
    http: Client,
    base: Url,
    /// Leads to the socket while it is held; without the folder there is no socket.
    _socket: Option<SocketPath>,
}

impl Daemon {
    /// The daemon of this home, started if it does not run.
    pub async fn connect(printer: &Printer) -> Result<Self> {
        let home = Home::from_environment().map_err(|error| Failure::unexpected("finding the daemon", error))?;
        if !presence::listens(&home) {
            start::start(&home, printer).await?;
        }
        let daemon = Self::at(&home)?;
        // One that is suspended takes connections nevertheless. What it answers matters later.
        let asked = daemon.request(Method::GET, &["version"]).timeout(VERSION_LIMIT).send().await;
        if asked.is_err_and(|error| error.is_timeout()) {
            let silent = Presence::silent(&home, format!("no response within {} s", VERSION_LIMIT.as_secs()));
            return Err(Failure::Unexpected { message: silent.describe(), hint: silent.hint() });
        }
        Ok(daemon)
    }

    /// The daemon of this home, whether it runs or not.
    pub fn at(home: &Home) -> Result<Self> {
        let path = presence::as_held(home).socket();
        let socket = match SocketPath::new(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::unexpected("finding the daemon's socket", error));
            }
            found => found.ok(),
        };
        let http = Client::builder()
            .unix_socket(socket.as_ref().map_or(path.as_path(), SocketPath::get))
            .timeout(ANSWER_LIMIT)
            .build();
        let http = http.map_err(|error| Failure::unexpected("preparing the connection", error))?;
        let base = BASE.parse().map_err(|error| Failure::unexpected("preparing the connection", error))?;
        Ok(Self { http, base, _socket: socket })
    }

    pub async fn version(&self) -> Result<Version> {
        answer(self.request(Method::GET, &["version"]).timeout(VERSION_LIMIT)).await
    }

    pub async fn run_diagnostics(&self) -> Result<Diagnostics> {
        answer(self.request(Method::POST, &["diagnostics"])).await
    }

    pub async fn list_environments(&self) -> Result<EnvironmentList> {
        let query = ListEnvironments { limit: Some(PAGE), ..Default::default() };
        answer(self.request(Method::GET, &["environments"]).query(&query)).await
    }

    pub async fn get_environment(&self, name: &EnvironmentName) -> Result<Environment> {
        self.get(&["environments", name.as_str()]).await
    }

    pub async fn create_environment(&self, name: EnvironmentName, config: Config) -> Result<EnvironmentChange> {
        let body = CreateEnvironment { name, config };
        answer(self.request(Method::POST, &["environments"]).json(&body)).await
    }

    pub async fn update_environment(&self, name: &EnvironmentName, config: Config) -> Result<EnvironmentChange> {
        let request = self.request(Method::PATCH, &["environments", name.as_str()]);
        answer(request.json(&UpdateEnvironment { config })).await
    }

    pub async fn delete_environment(&self, name: &EnvironmentName, purge: bool) -> Result<EnvironmentChange> {
        let request = self.request(Method::DELETE, &["environments", name.as_str()]);
        answer(request.query(&DeleteEnvironment { purge })).await
    }

    pub async fn list_unregistered_environments(&self) -> Result<UnregisteredEnvironmentList> {
        self.get(&["unregistered-environments"]).await
    }

    pub async fn adopt_environment(&self, name: &EnvironmentName) -> Result<EnvironmentChange> {
        answer(self.request(Method::POST, &["environments", name.as_str(), "adopt"])).await
    }

    pub async fn list_backups(&self, name: &EnvironmentName) -> Result<BackupList> {
        self.get(&["environments", name.as_str(), "backups"]).await
    }

    pub async fn roll_back(&self, name: &EnvironmentName, backup: Option<String>) -> Result<RolledBack> {
        let request = self.request(Method::POST, &["environments", name.as_str(), "rollback"]);
        answer(request.json(&RollBack { backup })).await
    }

    pub async fn tick_environment(&self, name: &EnvironmentName) -> Result<()> {
        answer(self.request(Method::POST, &["environments", name.as_str(), "tick"])).await
    }

    pub async fn estimate_cost(&self, name: &EnvironmentName, days: u32) -> Result<Cost> {
        let request = self.request(Method::GET, &["environments", name.as_str(), "cost"]);
        answer(request.query(&EstimateCost { days: Some(days) })).await
    }

    pub async fn list_uis(&self) -> Result<UiList> {
        self.get(&["uis"]).await
    }

    pub async fn get_credentials(&self) -> Result<CredentialsStatus> {
        self.get(&["credentials"]).await
    }

    pub async fn put_credentials(
        &self,
        credentials: &PutCredentials,
        how: StoreCredentials,
    ) -> Result<CredentialsStatus> {
        answer(self.request(Method::PUT, &["credentials"]).query(&how).json(credentials)).await
    }

    pub async fn delete_credentials(&self) -> Result<()> {
        answer(self.request(Method::DELETE, &["credentials"])).await
    }

    pub async fn list_operations(&self, query: &ListOperations) -> Result<OperationList> {
        answer(self.request(Method::GET, &["operations"]).query(query)).await
    }

    pub async fn get_operation(&self, id: Uuid) -> Result<Operation> {
        self.get(&["operations", &id.to_string()]).await
    }

    pub async fn cancel_operation(&self, id: Uuid) -> Result<Operation> {
        answer(self.request(Method::POST, &["operations", &id.to_string(), "cancel"])).await
    }

    /// Waits until the operation has a revision after `after`, or for some seconds.
    pub async fn follow_operation(&self, id: Uuid, after: i64) -> Result<Operation> {
        let request = self.request(Method::GET, &["operations", &id.to_string()]);
        answer(request.query(&[("after", after), ("wait_seconds", 20)])).await
    }

    /// All DAG files that are wanted: the limit is of one answer.
    pub async fn list_dag_files(&self, environment: &EnvironmentName, wanted: &ListDagFiles) -> Result<DagFileList> {
        let mut all = DagFileList { files: Vec::new(), total_entries: 0 };
        loop {
            let offset = u32::try_from(all.files.len()).ok();
            let query = ListDagFiles { limit: Some(PAGE), offset, ..wanted.clone() };
            let request = self.request(Method::GET, &["environments", environment.as_str(), "dags"]);
            let page: DagFileList = answer(request.query(&query)).await?;
            let is_last = page.files.len() < PAGE as usize;
            all.files.extend(page.files);
            all.total_entries = page.total_entries;
            if is_last {
                return Ok(all);
            }
        }
    }

    pub async fn put_dag_file(
        &self,
        environment: &EnvironmentName,
        filename: &str,
        content: Vec<u8>,
        mode: PutMode,
    ) -> Result<DagFileChange> {
        let request = self.request(Method::PUT, &["environments", environment.as_str(), "dags", "files", filename]);
        let request = request.query(&[("mode", mode)]).header("content-type", "text/x-python");
        answer(request.body(content).timeout(FILE_LIMIT)).await
    }

    pub async fn delete_dag_file(&self, environment: &EnvironmentName, filename: &str) -> Result<DagFileDeletion> {
        let path = ["environments", environment.as_str(), "dags", "files", filename];
        answer(self.request(Method::DELETE, &path)).await
    }

    pub async fn get_dag(&self, environment: &EnvironmentName, dag_id: &str) -> Result<DagDetail> {
        self.get(&["environments", environment.as_str(), "dags", dag_id]).await
    }

    pub async fn get_container_logs(
        &self,
        environment: &EnvironmentName,
        query: ReadContainerLogs,
    ) -> Result<ContainerLogs> {
        let request = self.request(Method::GET, &["environments", environment.as_str(), "logs"]);
        answer(request.query(&query)).await
    }

    pub async fn list_import_errors(&self, environment: &EnvironmentName) -> Result<ImportErrorList> {
        let query = ListImportErrors { limit: Some(PAGE), offset: None };
        let request = self.request(Method::GET, &["environments", environment.as_str(), "import-errors"]);
        answer(request.query(&query)).await
    }

    pub async fn update_dag(&self, environment: &EnvironmentName, dag_id: &str, update: UpdateDag) -> Result<Dag> {
        let request = self.request(Method::PATCH, &["environments", environment.as_str(), "dags", dag_id]);
        answer(request.json(&update)).await
    }

    pub async fn delete_dag(&self, environment: &EnvironmentName, dag_id: &str, force: bool) -> Result<DagDeletion> {
        let request = self.request(Method::DELETE, &["environments", environment.as_str(), "dags", dag_id]);
        answer(request.query(&[("force", force)])).await
    }

    pub async fn trigger_dag_run(
        &self,
        environment: &EnvironmentName,
        dag_id: &str,
        run: &TriggerDagRun,
    ) -> Result<DagRunDetail> {
        let request = self.request(Method::POST, &["environments", environment.as_str(), "dags", dag_id, "runs"]);
        answer(request.json(run)).await
    }

    pub async fn list_dag_runs(&self, environment: &EnvironmentName, query: &ListDagRuns) -> Result<DagRunList> {
        answer(self.request(Method::GET, &["environments", environment.as_str(), "runs"]).query(query)).await
    }

    pub async fn get_dag_run(&self, environment: &EnvironmentName, dag_id: &str, run_id: &str) -> Result<DagRunDetail> {
        self.get(&["environments", environment.as_str(), "dags", dag_id, "runs", run_id]).await
    }

    pub async fn clear_dag_run(
        &self,
        environment: &EnvironmentName,
        (dag_id, run_id): (&str, &str),
        clear: ClearDagRun,
    ) -> Result<TaskInstanceList> {
        let path = ["environments", environment.as_str(), "dags", dag_id, "runs", run_id, "clear"];
        answer(self.request(Method::POST, &path).json(&clear)).await
    }

    pub async fn update_dag_run(
        &self,
        environment: &EnvironmentName,
        (dag_id, run_id): (&str, &str),
        state: RunMark,
    ) -> Result<DagRunDetail> {
        let path = ["environments", environment.as_str(), "dags", dag_id, "runs", run_id];
        answer(self.request(Method::PATCH, &path).json(&UpdateDagRun { state })).await
    }

    pub async fn list_task_instances(
        &self,
        environment: &EnvironmentName,
        (dag_id, run_id): (&str, &str),
        query: &ListTaskInstances,
    ) -> Result<TaskInstanceList> {
        let path = ["environments", environment.as_str(), "dags", dag_id, "runs", run_id, "tasks"];
        answer(self.request(Method::GET, &path).query(query)).await
    }

    pub async fn clear_task_instances(
        &self,
        environment: &EnvironmentName,
        (dag_id, run_id, task_id): (&str, &str, &str),
        clear: &ClearTaskInstances,
    ) -> Result<TaskInstanceList> {
        let path = ["environments", environment.as_str(), "dags", dag_id, "runs", run_id, "tasks", task_id, "clear"];
        answer(self.request(Method::POST, &path).json(clear)).await
    }

    pub async fn list_questions(&self, environment: &EnvironmentName, query: &ListQuestions) -> Result<QuestionList> {
        let request = self.request(Method::GET, &["environments", environment.as_str(), "hitl-details"]);
        answer(request.query(query)).await
    }

    pub async fn answer_question(
        &self,
        environment: &EnvironmentName,
        (dag_id, run_id, task_id): (&str, &str, &str),
        body: &AnswerQuestion,
    ) -> Result<question::Response> {
        let path = ["environments", environment.as_str(), "dags", dag_id, "runs", run_id, "tasks", task_id];
        answer(self.request(Method::PATCH, &[&path[..], &["hitl-details"]].concat()).json(body)).await
    }

    pub async fn update_task_instance(
        &self,
        environment: &EnvironmentName,
        (dag_id, run_id, task_id): (&str, &str, &str),
        update: &UpdateTaskInstance,
    ) -> Result<TaskInstanceList> {
        let path = ["environments", environment.as_str(), "dags", dag_id, "runs", run_id, "tasks", task_id];
        answer(self.request(Method::PATCH, &path).json(update)).await
    }

    pub async fn list_backfills(&self, environment: &EnvironmentName, query: &ListBackfills) -> Result<BackfillList> {
        answer(self.request(Method::GET, &["environments", environment.as_str(), "backfills"]).query(query)).await
    }

    pub async fn get_backfill(&self, environment: &EnvironmentName, id: i64) -> Result<BackfillDetail> {
        self.get(&["environments", environment.as_str(), "backfills", &id.to_string()]).await
    }

    pub async fn create_backfill(
        &self,
        environment: &EnvironmentName,
        backfill: &CreateBackfill,
    ) -> Result<BackfillDetail> {
        answer(self.request(Method::POST, &["environments", environment.as_str(), "backfills"]).json(backfill)).await
    }

    pub async fn dry_run_backfill(
        &self,
        environment: &EnvironmentName,
        backfill: &CreateBackfill,
    ) -> Result<DryRunBackfillList> {
        let path = ["environments", environment.as_str(), "backfills", "dry_run"];
        answer(self.request(Method::POST, &path).json(backfill)).await
    }

    pub async fn change_backfill(
        &self,
        environment: &EnvironmentName,
        id: i64,
        action: BackfillAction,
    ) -> Result<BackfillDetail> {
        let path = ["environments", environment.as_str(), "backfills", &id.to_string(), action.name()];
        answer(self.request(Method::PUT, &path)).await
    }

    /// A page of `variables`, `connections` or `pools`.
    pub async fn list<T: DeserializeOwned>(&self, environment: &EnvironmentName, noun: &str, page: &Page) -> Result<T> {
        answer(self.request(Method::GET, &["environments", environment.as_str(), noun]).query(page)).await
    }

    /// Writes variables, connections or pools.
    pub async fn put(&self, environment: &EnvironmentName, noun: &str, body: &impl Serialize) -> Result<Written> {
        answer(self.request(Method::POST, &["environments", environment.as_str(), noun]).json(body)).await
    }

    /// One variable, connection or pool.
    pub async fn get_one<T: DeserializeOwned>(
        &self,
        environment: &EnvironmentName,
        (noun, name): (&str, &str),
        show_values: bool,
    ) -> Result<T> {
        let request = self.request(Method::GET, &["environments", environment.as_str(), noun, name]);
        answer(request.query(&[("show_values", show_values)])).await
    }

    /// Removes a variable, connection or pool.
    pub async fn delete(&self, environment: &EnvironmentName, (noun, name): (&str, &str)) -> Result<()> {
        answer(self.request(Method::DELETE, &["environments", environment.as_str(), noun, name])).await
    }

    pub async fn list_watches(&self, query: &ListWatches) -> Result<WatchList> {
        answer(self.request(Method::GET, &["watches"]).query(query)).await
    }

    pub async fn create_watch(&self, watch: &CreateWatch) -> Result<Watch> {
        answer(self.request(Method::POST, &["watches"]).json(watch)).await
    }

    pub async fn get_watch(&self, id: Uuid) -> Result<Watch> {
        self.get(&["watches", &id.to_string()]).await
    }

    pub async fn delete_watch(&self, id: Uuid) -> Result<WatchRemoval> {
        answer(self.request(Method::DELETE, &["watches", &id.to_string()])).await
    }

    pub async fn get_task_log(
        &self,
        environment: &EnvironmentName,
        (dag_id, run_id, task_id): (&str, &str, &str),
        query: &ReadLogs,
    ) -> Result<TaskLog> {
        let path = ["environments", environment.as_str(), "dags", dag_id, "runs", run_id, "tasks", task_id, "logs"];
        answer(self.request(Method::GET, &path).query(query)).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T> {
        answer(self.request(Method::GET, path)).await
    }

    /// Each part of the path is encoded, line breaks and tabs too, which [`Url`] would drop: names hold all of them.
    pub(crate) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        let parts: String = path.iter().map(|part| format!("/{}", encoded(part))).collect();
        url.set_path(&format!("{}{parts}", self.base.path().trim_end_matches('/')));
        self.http.request(method, url)
    }
}

/// A part of a path in percent-encoding.
fn encoded(part: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    part.bytes().map(byte).collect()
}

/// The version of the daemon that answered, if it is another one than this program's.
pub fn other_version() -> Option<&'static str> {
    ANSWERED.get().map(String::as_str).filter(|version| *version != env!("CARGO_PKG_VERSION"))
}

/// What the first answer said. (There is one daemon for each run of this program.)
static ANSWERED: OnceLock<String> = OnceLock::new();

fn note_version(response: &Response) {
    if let Some(version) = response.headers().get(VERSION_HEADER).and_then(|version| version.to_str().ok()) {
        ANSWERED.get_or_init(|| version.to_owned());
    }
}

pub(crate) fn unreachable(error: reqwest::Error) -> Failure {
    let message = if error.is_timeout() {
        "the daemon did not respond in time".to_owned()
    } else {
        format!("the daemon cannot be reached: {}", error.without_url())
    };
    Failure::Unexpected { message, hint: Some("`airflow-serverless daemon status` shows more".to_owned()) }
}

async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> Result<T> {
    let body = send(request).await?.bytes().await.map_err(unreachable)?;
    let body: &[u8] = if body.is_empty() { b"null" } else { &body };
    serde_json::from_slice(body).map_err(|error| Failure::unexpected("reading the daemon's response", error))
}

/// The answer, unless it is a problem.
pub(crate) async fn send(request: RequestBuilder) -> Result<Response> {
    let response = request.send().await.map_err(unreachable)?;
    note_version(&response);
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.bytes().await.map_err(unreachable)?;
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => Err(problem.into()),
        Err(_) => Err(Failure::Unexpected { message: format!("the daemon answered {status}"), hint: None }),
    }
}
