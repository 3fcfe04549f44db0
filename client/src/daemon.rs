//! The client of the daemon: its REST API over its Unix socket, one method per operation.

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
    routes::{self, Route},
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

use crate::{error::CliError, home_lock};

type Result<T, E = CliError> = std::result::Result<T, E>;

/// Longest wait for a response; the scheduler's limits are shorter.
const ANSWER_LIMIT: Duration = Duration::from_secs(180);
/// Longest wait for the validation of a file, which may install packages first; the daemon's limit is shorter.
const FILE_LIMIT: Duration = Duration::from_secs(390);
/// Longest wait for the version, which a healthy daemon returns at once.
pub(crate) const VERSION_LIMIT: Duration = Duration::from_secs(10);
/// For streams.
pub(crate) const NO_LIMIT: Duration = Duration::from_secs(u32::MAX as u64);
/// The largest page of a list.
const PAGE: u32 = Page::LARGEST_LIMIT;
/// The host is not resolved: all requests go to the socket.
const BASE: &str = "http://localhost";

pub struct Daemon {
    http: Client,
    base: Url,
    /// Keeps the path of the socket valid; `None` if the folder of the socket does not exist.
    _socket: Option<SocketPath>,
}

impl Daemon {
    /// Returns a client for the daemon of this home, whether it runs or not.
    pub fn at(home: &Home) -> Result<Self> {
        let path = home_lock::resolve_running_home(home).socket();
        let socket = match SocketPath::new(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(CliError::unexpected("finding the daemon's socket", error));
            }
            found => found.ok(),
        };
        let http = Client::builder()
            .unix_socket(socket.as_ref().map_or(path.as_path(), SocketPath::get))
            .timeout(ANSWER_LIMIT)
            .build();
        let http = http.map_err(|error| CliError::unexpected("preparing the connection", error))?;
        let base = BASE.parse().map_err(|error| CliError::unexpected("preparing the connection", error))?;
        Ok(Self { http, base, _socket: socket })
    }

    /// Whether the daemon responds in time, even with an error.
    pub async fn responds(&self) -> bool {
        let asked = self.request(Method::GET, routes::VERSION.path([])).timeout(VERSION_LIMIT).send().await;
        !asked.is_err_and(|error| error.is_timeout())
    }

    pub async fn version(&self) -> Result<Version> {
        answer(self.request(Method::GET, routes::VERSION.path([])).timeout(VERSION_LIMIT)).await
    }

    pub async fn run_diagnostics(&self) -> Result<Diagnostics> {
        answer(self.request(Method::POST, routes::DIAGNOSTICS.path([]))).await
    }

    pub async fn list_environments(&self) -> Result<EnvironmentList> {
        let query = ListEnvironments { limit: Some(PAGE), ..Default::default() };
        answer(self.request(Method::GET, routes::ENVIRONMENTS.path([])).query(&query)).await
    }

    pub async fn get_environment(&self, name: &EnvironmentName) -> Result<Environment> {
        self.get(routes::ENVIRONMENT.path([name.as_str()])).await
    }

    pub async fn create_environment(&self, name: EnvironmentName, config: Config) -> Result<EnvironmentChange> {
        let body = CreateEnvironment { name, config };
        answer(self.request(Method::POST, routes::ENVIRONMENTS.path([])).json(&body)).await
    }

    pub async fn update_environment(&self, name: &EnvironmentName, config: Config) -> Result<EnvironmentChange> {
        let request = self.request(Method::PATCH, routes::ENVIRONMENT.path([name.as_str()]));
        answer(request.json(&UpdateEnvironment { config })).await
    }

    pub async fn delete_environment(&self, name: &EnvironmentName, purge: bool) -> Result<EnvironmentChange> {
        let request = self.request(Method::DELETE, routes::ENVIRONMENT.path([name.as_str()]));
        answer(request.query(&DeleteEnvironment { purge })).await
    }

    pub async fn list_unregistered_environments(&self) -> Result<UnregisteredEnvironmentList> {
        self.get(routes::UNREGISTERED_ENVIRONMENTS.path([])).await
    }

    pub async fn adopt_environment(&self, name: &EnvironmentName) -> Result<EnvironmentChange> {
        answer(self.request(Method::POST, routes::ADOPT.path([name.as_str()]))).await
    }

    pub async fn list_backups(&self, name: &EnvironmentName) -> Result<BackupList> {
        self.get(routes::BACKUPS.path([name.as_str()])).await
    }

    pub async fn roll_back(&self, name: &EnvironmentName, backup: Option<String>) -> Result<RolledBack> {
        let request = self.request(Method::POST, routes::ROLLBACK.path([name.as_str()]));
        answer(request.json(&RollBack { backup })).await
    }

    pub async fn tick_environment(&self, name: &EnvironmentName) -> Result<()> {
        answer(self.request(Method::POST, routes::TICK.path([name.as_str()]))).await
    }

    pub async fn estimate_cost(&self, name: &EnvironmentName, days: u32) -> Result<Cost> {
        let request = self.request(Method::GET, routes::COST.path([name.as_str()]));
        answer(request.query(&EstimateCost { days: Some(days) })).await
    }

    pub async fn list_uis(&self) -> Result<UiList> {
        self.get(routes::UIS.path([])).await
    }

    pub async fn get_credentials(&self) -> Result<CredentialsStatus> {
        self.get(routes::CREDENTIALS.path([])).await
    }

    pub async fn put_credentials(
        &self,
        credentials: &PutCredentials,
        how: StoreCredentials,
    ) -> Result<CredentialsStatus> {
        answer(self.request(Method::PUT, routes::CREDENTIALS.path([])).query(&how).json(credentials)).await
    }

    pub async fn delete_credentials(&self) -> Result<()> {
        answer(self.request(Method::DELETE, routes::CREDENTIALS.path([]))).await
    }

    pub async fn list_operations(&self, query: &ListOperations) -> Result<OperationList> {
        answer(self.request(Method::GET, routes::OPERATIONS.path([])).query(query)).await
    }

    pub async fn get_operation(&self, id: Uuid) -> Result<Operation> {
        self.get(routes::OPERATION.path([&id.to_string()])).await
    }

    pub async fn cancel_operation(&self, id: Uuid) -> Result<Operation> {
        answer(self.request(Method::POST, routes::OPERATION_CANCEL.path([&id.to_string()]))).await
    }

    /// Waits until the operation has a revision after `after`, or for some seconds.
    pub async fn follow_operation(&self, id: Uuid, after: i64) -> Result<Operation> {
        let request = self.request(Method::GET, routes::OPERATION.path([&id.to_string()]));
        answer(request.query(&[("after", after), ("wait_seconds", 20)])).await
    }

    /// Returns all matching DAG files, in as many requests as needed.
    pub async fn list_dag_files(&self, environment: &EnvironmentName, wanted: &ListDagFiles) -> Result<DagFileList> {
        let mut all = DagFileList { files: Vec::new(), total_entries: 0 };
        loop {
            let offset = u32::try_from(all.files.len()).ok();
            let query = ListDagFiles { limit: Some(PAGE), offset, ..wanted.clone() };
            let request = self.request(Method::GET, routes::DAG_FILES.path([environment.as_str()]));
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
        let request = self.request(Method::PUT, routes::DAG_FILE.path([environment.as_str(), filename]));
        let request = request.query(&[("mode", mode)]).header("content-type", "text/x-python");
        answer(request.body(content).timeout(FILE_LIMIT)).await
    }

    pub async fn delete_dag_file(&self, environment: &EnvironmentName, filename: &str) -> Result<DagFileDeletion> {
        let path = routes::DAG_FILE.path([environment.as_str(), filename]);
        answer(self.request(Method::DELETE, path)).await
    }

    pub async fn get_dag(&self, environment: &EnvironmentName, dag_id: &str) -> Result<DagDetail> {
        self.get(routes::DAG.path([environment.as_str(), dag_id])).await
    }

    pub async fn get_container_logs(
        &self,
        environment: &EnvironmentName,
        query: ReadContainerLogs,
    ) -> Result<ContainerLogs> {
        let request = self.request(Method::GET, routes::LOGS.path([environment.as_str()]));
        answer(request.query(&query)).await
    }

    pub async fn list_import_errors(&self, environment: &EnvironmentName) -> Result<ImportErrorList> {
        let query = ListImportErrors { limit: Some(PAGE), offset: None };
        let request = self.request(Method::GET, routes::IMPORT_ERRORS.path([environment.as_str()]));
        answer(request.query(&query)).await
    }

    pub async fn update_dag(&self, environment: &EnvironmentName, dag_id: &str, update: UpdateDag) -> Result<Dag> {
        let request = self.request(Method::PATCH, routes::DAG.path([environment.as_str(), dag_id]));
        answer(request.json(&update)).await
    }

    pub async fn delete_dag(&self, environment: &EnvironmentName, dag_id: &str, force: bool) -> Result<DagDeletion> {
        let request = self.request(Method::DELETE, routes::DAG.path([environment.as_str(), dag_id]));
        answer(request.query(&[("force", force)])).await
    }

    pub async fn trigger_dag_run(
        &self,
        environment: &EnvironmentName,
        dag_id: &str,
        run: &TriggerDagRun,
    ) -> Result<DagRunDetail> {
        let request = self.request(Method::POST, routes::DAG_RUNS.path([environment.as_str(), dag_id]));
        answer(request.json(run)).await
    }

    pub async fn list_dag_runs(&self, environment: &EnvironmentName, query: &ListDagRuns) -> Result<DagRunList> {
        answer(self.request(Method::GET, routes::RUNS.path([environment.as_str()])).query(query)).await
    }

    pub async fn get_dag_run(&self, environment: &EnvironmentName, dag_id: &str, run_id: &str) -> Result<DagRunDetail> {
        self.get(routes::DAG_RUN.path([environment.as_str(), dag_id, run_id])).await
    }

    pub async fn clear_dag_run(
        &self,
        environment: &EnvironmentName,
        (dag_id, run_id): (&str, &str),
        clear: ClearDagRun,
    ) -> Result<TaskInstanceList> {
        let path = routes::DAG_RUN_CLEAR.path([environment.as_str(), dag_id, run_id]);
        answer(self.request(Method::POST, path).json(&clear)).await
    }

    pub async fn update_dag_run(
        &self,
        environment: &EnvironmentName,
        (dag_id, run_id): (&str, &str),
        state: RunMark,
    ) -> Result<DagRunDetail> {
        let path = routes::DAG_RUN.path([environment.as_str(), dag_id, run_id]);
        answer(self.request(Method::PATCH, path).json(&UpdateDagRun { state })).await
    }

    pub async fn list_task_instances(
        &self,
        environment: &EnvironmentName,
        (dag_id, run_id): (&str, &str),
        query: &ListTaskInstances,
    ) -> Result<TaskInstanceList> {
        let path = routes::TASKS.path([environment.as_str(), dag_id, run_id]);
        answer(self.request(Method::GET, path).query(query)).await
    }

    pub async fn clear_task_instances(
        &self,
        environment: &EnvironmentName,
        (dag_id, run_id, task_id): (&str, &str, &str),
        clear: &ClearTaskInstances,
    ) -> Result<TaskInstanceList> {
        let path = routes::TASK_CLEAR.path([environment.as_str(), dag_id, run_id, task_id]);
        answer(self.request(Method::POST, path).json(clear)).await
    }

    pub async fn list_questions(&self, environment: &EnvironmentName, query: &ListQuestions) -> Result<QuestionList> {
        let request = self.request(Method::GET, routes::QUESTIONS.path([environment.as_str()]));
        answer(request.query(query)).await
    }

    pub async fn answer_question(
        &self,
        environment: &EnvironmentName,
        (dag_id, run_id, task_id): (&str, &str, &str),
        body: &AnswerQuestion,
    ) -> Result<question::Response> {
        let path = routes::TASK_QUESTION.path([environment.as_str(), dag_id, run_id, task_id]);
        answer(self.request(Method::PATCH, path).json(body)).await
    }

    pub async fn update_task_instance(
        &self,
        environment: &EnvironmentName,
        (dag_id, run_id, task_id): (&str, &str, &str),
        update: &UpdateTaskInstance,
    ) -> Result<TaskInstanceList> {
        let path = routes::TASK.path([environment.as_str(), dag_id, run_id, task_id]);
        answer(self.request(Method::PATCH, path).json(update)).await
    }

    pub async fn list_backfills(&self, environment: &EnvironmentName, query: &ListBackfills) -> Result<BackfillList> {
        answer(self.request(Method::GET, routes::BACKFILLS.path([environment.as_str()])).query(query)).await
    }

    pub async fn get_backfill(&self, environment: &EnvironmentName, id: i64) -> Result<BackfillDetail> {
        self.get(routes::BACKFILL.path([environment.as_str(), &id.to_string()])).await
    }

    pub async fn create_backfill(
        &self,
        environment: &EnvironmentName,
        backfill: &CreateBackfill,
    ) -> Result<BackfillDetail> {
        answer(self.request(Method::POST, routes::BACKFILLS.path([environment.as_str()])).json(backfill)).await
    }

    pub async fn dry_run_backfill(
        &self,
        environment: &EnvironmentName,
        backfill: &CreateBackfill,
    ) -> Result<DryRunBackfillList> {
        let path = routes::BACKFILLS_DRY_RUN.path([environment.as_str()]);
        answer(self.request(Method::POST, path).json(backfill)).await
    }

    pub async fn change_backfill(
        &self,
        environment: &EnvironmentName,
        id: i64,
        action: BackfillAction,
    ) -> Result<BackfillDetail> {
        let route = match action {
            BackfillAction::Pause => routes::BACKFILL_PAUSE,
            BackfillAction::Unpause => routes::BACKFILL_UNPAUSE,
            BackfillAction::Cancel => routes::BACKFILL_CANCEL,
        };
        answer(self.request(Method::PUT, route.path([environment.as_str(), &id.to_string()]))).await
    }

    /// Returns a page of `variables`, `connections` or `pools`.
    pub async fn list<T: DeserializeOwned>(
        &self,
        environment: &EnvironmentName,
        route: Route<1>,
        page: &Page,
    ) -> Result<T> {
        answer(self.request(Method::GET, route.path([environment.as_str()])).query(page)).await
    }

    /// Writes variables, connections or pools.
    pub async fn put(&self, environment: &EnvironmentName, route: Route<1>, body: &impl Serialize) -> Result<Written> {
        answer(self.request(Method::POST, route.path([environment.as_str()])).json(body)).await
    }

    /// Returns one variable, connection or pool.
    pub async fn get_one<T: DeserializeOwned>(
        &self,
        environment: &EnvironmentName,
        (route, name): (Route<2>, &str),
        show_values: bool,
    ) -> Result<T> {
        let request = self.request(Method::GET, route.path([environment.as_str(), name]));
        answer(request.query(&[("show_values", show_values)])).await
    }

    /// Removes a variable, connection or pool.
    pub async fn delete(&self, environment: &EnvironmentName, (route, name): (Route<2>, &str)) -> Result<()> {
        answer(self.request(Method::DELETE, route.path([environment.as_str(), name]))).await
    }

    pub async fn list_watches(&self, query: &ListWatches) -> Result<WatchList> {
        answer(self.request(Method::GET, routes::WATCHES.path([])).query(query)).await
    }

    pub async fn create_watch(&self, watch: &CreateWatch) -> Result<Watch> {
        answer(self.request(Method::POST, routes::WATCHES.path([])).json(watch)).await
    }

    pub async fn get_watch(&self, id: Uuid) -> Result<Watch> {
        self.get(routes::WATCH.path([&id.to_string()])).await
    }

    pub async fn delete_watch(&self, id: Uuid) -> Result<WatchRemoval> {
        answer(self.request(Method::DELETE, routes::WATCH.path([&id.to_string()]))).await
    }

    pub async fn get_task_log(
        &self,
        environment: &EnvironmentName,
        (dag_id, run_id, task_id): (&str, &str, &str),
        query: &ReadLogs,
    ) -> Result<TaskLog> {
        let path = routes::TASK_LOG.path([environment.as_str(), dag_id, run_id, task_id]);
        answer(self.request(Method::GET, path).query(query)).await
    }

    async fn get<T: DeserializeOwned>(&self, path: String) -> Result<T> {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) fn request(&self, method: Method, path: String) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&path);
        self.http.request(method, url)
    }
}

/// Returns the version of the daemon if it differs from this program's.
pub fn other_version() -> Option<&'static str> {
    ANSWERED.get().map(String::as_str).filter(|version| *version != env!("CARGO_PKG_VERSION"))
}

/// The version in the first response. (A run of this program uses one daemon.)
static ANSWERED: OnceLock<String> = OnceLock::new();

fn note_version(response: &Response) {
    if let Some(version) = response.headers().get(VERSION_HEADER).and_then(|version| version.to_str().ok()) {
        ANSWERED.get_or_init(|| version.to_owned());
    }
}

pub(crate) fn unreachable(error: reqwest::Error) -> CliError {
    let message = if error.is_timeout() {
        "the daemon did not respond in time".to_owned()
    } else {
        format!("the daemon cannot be reached: {}", error.without_url())
    };
    CliError::Unexpected { message, hint: Some("`airflow-serverless daemon status` shows more".to_owned()) }
}

async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> Result<T> {
    let body = send(request).await?.bytes().await.map_err(unreachable)?;
    let body: &[u8] = if body.is_empty() { b"null" } else { &body };
    serde_json::from_slice(body).map_err(|error| CliError::unexpected("reading the daemon's response", error))
}

/// Sends a request; returns the response unless it is a problem.
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
        Err(_) => Err(CliError::Unexpected { message: format!("the daemon answered {status}"), hint: None }),
    }
}
