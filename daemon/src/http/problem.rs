//! Maps errors to statuses and RFC 9457 problems, for the whole API.

use airflow_serverless_api::problem::{Fault, MEDIA_TYPE, Problem};
use axum::{
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

pub(super) use super::problem_kinds;
use super::problem_kinds::Kind;
use crate::{
    error::{Error, Reason, Subject},
    modal::ModalError,
    report::chain,
};

const DAGS_HINT: &str = "`airflow-serverless dags list` shows the DAGs of an environment, import errors included";

const RUNS_HINT: &str = "`airflow-serverless runs list` shows the runs";

const QUESTIONS_HINT: &str = "`airflow-serverless tasks questions` shows the open questions";

const OVERWRITE_HINT: &str = "choose `overwrite` as the action on existing ones to replace them, `skip` to keep them";

const WATCH_HINT: &str = "`airflow-serverless watch remove DIR` removes the other watch; its files stay on the Volume";

/// A problem response.
pub(super) struct Failure(Box<Problem>);

pub(super) type Answer<T> = Result<T, Failure>;

impl Failure {
    pub(super) fn new(kind: &Kind, detail: String) -> Self {
        Self(Box::new(Problem {
            kind: format!("{}{}", Problem::NAMESPACE, kind.name),
            title: kind.title.to_owned(),
            status: kind.status.as_u16(),
            detail,
            hint: None,
            errors: Vec::new(),
        }))
    }

    /// Returns the problem, for use inside a stream.
    pub(super) fn problem(&self) -> &Problem {
        &self.0
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    fn errors(mut self, errors: &[Fault]) -> Self {
        self.0.errors = errors.to_vec();
        self
    }

    fn not_found(subject: Subject, detail: String) -> Self {
        let (kind, hint) = match subject {
            Subject::Dag => (problem_kinds::DAG_NOT_FOUND, DAGS_HINT),
            Subject::Run => (problem_kinds::DAG_RUN_NOT_FOUND, RUNS_HINT),
            Subject::Task => {
                (problem_kinds::TASK_INSTANCE_NOT_FOUND, "`airflow-serverless runs show` shows the tasks of a run")
            }
            Subject::Question => (problem_kinds::TASK_INSTANCE_NOT_FOUND, QUESTIONS_HINT),
            Subject::Backfill => {
                (problem_kinds::BACKFILL_NOT_FOUND, "`airflow-serverless backfills list` shows the backfills")
            }
            Subject::Backup => (problem_kinds::BACKUP_NOT_FOUND, "`airflow-serverless env backups` shows the backups"),
            Subject::Variable => {
                (problem_kinds::VARIABLE_NOT_FOUND, "`airflow-serverless variables list` shows the variables")
            }
            Subject::Connection => {
                (problem_kinds::CONNECTION_NOT_FOUND, "`airflow-serverless connections list` shows the connections")
            }
            Subject::Pool => (problem_kinds::POOL_NOT_FOUND, "`airflow-serverless pools list` shows the pools"),
        };
        Self::new(&kind, detail).hint(hint)
    }

    fn conflict(subject: Subject, detail: String) -> Self {
        let (kind, hint) = match subject {
            Subject::Dag | Subject::Run => (problem_kinds::DAG_RUN_EXISTS, RUNS_HINT),
            Subject::Task => (problem_kinds::TASK_INSTANCE_UNCHANGED, "`airflow-serverless tasks clear` reruns it"),
            Subject::Question => (problem_kinds::QUESTION_CONFLICT, QUESTIONS_HINT),
            // Nothing about a backup can be in conflict with another one.
            Subject::Backup => (problem_kinds::REFUSED, "`airflow-serverless env backups` shows the backups"),
            Subject::Backfill => (
                problem_kinds::BACKFILL_CONFLICT,
                "`airflow-serverless backfills list` shows the backfills, `backfills cancel` ends one",
            ),
            Subject::Variable => (problem_kinds::VARIABLE_EXISTS, OVERWRITE_HINT),
            Subject::Connection => (
                problem_kinds::CONNECTION_EXISTS,
                "delete it first with `airflow-serverless connections delete`, or replace it with `connections import --overwrite`",
            ),
            Subject::Pool => (problem_kinds::POOL_EXISTS, OVERWRITE_HINT),
        };
        Self::new(&kind, detail).hint(hint)
    }

    /// The daemon runs, but cannot do its work.
    pub(super) fn not_ready(detail: String) -> Self {
        Self::new(&problem_kinds::NOT_READY, detail).hint("`airflow-serverless daemon logs` shows more")
    }

    /// A request that does not match the API; the extractor has chosen the status.
    pub(super) fn invalid_request(status: StatusCode, detail: String) -> Self {
        let kind = match status {
            StatusCode::PAYLOAD_TOO_LARGE => problem_kinds::BODY_TOO_LARGE,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => problem_kinds::UNSUPPORTED_MEDIA_TYPE,
            _ => Kind { status, ..problem_kinds::INVALID_REQUEST },
        };
        Self::new(&kind, detail).hint("/openapi.json describes the expected request")
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], axum::Json(self.0)).into_response();
        match status {
            StatusCode::UNAUTHORIZED => {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let detail = chain(&error);
        match &error {
            Error::InvalidConfig(faults) => Self::new(&problem_kinds::INVALID_CONFIG, detail).errors(faults),
            Error::EnvironmentNotFound(name) => Self::new(&problem_kinds::ENVIRONMENT_NOT_FOUND, detail).hint(format!(
                "`airflow-serverless create --env {name} --config config.yaml` creates it; \
                     `airflow-serverless env adopt --env {name}` registers it if it is deployed; \
                     `airflow-serverless env list` shows all"
            )),
            Error::NotDeployed(name) => Self::new(&problem_kinds::ENVIRONMENT_NOT_FOUND, detail).hint(format!(
                "`airflow-serverless create --env {name} --config config.yaml` creates it, with its old data \
                     after an `env delete` without `--purge`"
            )),
            Error::NotAdopted(name, _) => Self::new(&problem_kinds::ENVIRONMENT_NOT_ADOPTABLE, detail).hint(format!(
                "`airflow-serverless create --env {name} --config config.yaml` with its configuration registers it; \
                     its data stay"
            )),
            Error::EnvironmentDiffers(name) => Self::new(&problem_kinds::ENVIRONMENT_EXISTS, detail).hint(format!(
                "`airflow-serverless create --env {name} --config FILE --update` applies the new configuration"
            )),
            Error::EnvironmentNotReady(name, _) => Self::new(&problem_kinds::ENVIRONMENT_NOT_READY, detail)
                .hint(format!("`airflow-serverless env show --env {name}` shows its state")),
            Error::OperationNotFound(_) => Self::new(&problem_kinds::OPERATION_NOT_FOUND, detail),
            Error::InvalidFileName(..) => Self::new(&problem_kinds::INVALID_FILE_NAME, detail),
            Error::FileExists(..) => {
                Self::new(&problem_kinds::DAG_FILE_EXISTS, detail).hint("`airflow-serverless dags update` overwrites it")
            }
            Error::EnvironmentDeleting(name) => Self::new(&problem_kinds::ENVIRONMENT_DELETING, detail).hint(format!(
                "`airflow-serverless env show --env {name}` shows the progress; afterwards it can be created again"
            )),
            Error::DeletionNotCancelled(_) => Self::new(&problem_kinds::OPERATION_NOT_CANCELLABLE, detail),
            Error::PreconditionFailed(_) => Self::new(&problem_kinds::PRECONDITION_FAILED, detail)
                .hint("read it again and retry with the new ETag"),
            Error::IdempotencyKeyInUse => Self::new(&problem_kinds::IDEMPOTENCY_KEY_IN_USE, detail)
                .hint("wait for its response, or retry with the same key"),
            Error::IdempotencyKeyReused => Self::new(&problem_kinds::IDEMPOTENCY_KEY_REUSED, detail)
                .hint("use a new key for each request, such as a UUID"),
            Error::FileNotFound(..) => Self::new(&problem_kinds::DAG_FILE_NOT_FOUND, detail)
                .hint("`airflow-serverless dags create` uploads a new file"),
            Error::InvalidDagFile { faults, .. } => Self::new(&problem_kinds::INVALID_DAG_FILE, detail)
                .errors(faults)
                .hint("nothing was uploaded; correct the file and try again"),
            Error::DagNotFound(..) => Self::new(&problem_kinds::DAG_NOT_FOUND, detail).hint(DAGS_HINT),
            Error::SharedFile { .. } => {
                Self::new(&problem_kinds::DAG_FILE_SHARED, detail).hint("`--force` deletes the file with all of its DAGs")
            }
            Error::RunNotFound(..) => Self::new(&problem_kinds::DAG_RUN_NOT_FOUND, detail).hint(RUNS_HINT),
            Error::InvalidRunId(..) => {
                Self::new(&problem_kinds::INVALID_RUN_ID, detail).hint("omit it to have Airflow choose one")
            }
            Error::LogNotFound(why) => Self::new(&problem_kinds::LOG_NOT_FOUND, detail).hint(why.hint()),
            Error::NoBackup(name) => Self::new(&problem_kinds::BACKUP_NOT_FOUND, detail).hint(format!(
                "replaced databases are restored by name: `airflow-serverless env backups --env {name}` lists them, `env \
                 rollback --backup NAME` restores one. If there is none and the database is damaged, start over with \
                 `env delete --purge` and `create`: runs, variables, connections and DAG files are lost"
            )),
            Error::NotFound(subject, ..) | Error::Refused { subject, reason: Reason::NotFound, .. } => {
                Self::not_found(*subject, detail)
            }
            Error::Refused { subject, reason: Reason::Conflict, .. } => Self::conflict(*subject, detail),
            Error::Refused { reason: Reason::Invalid, .. } => Self::new(&problem_kinds::REFUSED, detail),
            Error::SchedulerFailed(name, _) => Self::new(&problem_kinds::SCHEDULER_FAILED, detail)
                .hint(format!("`airflow-serverless env show --env {name}` shows its state; \
                     `airflow-serverless env rollback --env {name}` restores a damaged database from a backup")),
            Error::Metadata { environment, .. } => Self::new(&problem_kinds::DATABASE_UNAVAILABLE, detail)
                .hint(format!("`airflow-serverless env show --env {environment}` shows whether the database is damaged")),
            Error::DatabaseMissing(environment) => Self::new(&problem_kinds::DATABASE_UNAVAILABLE, detail).hint(format!(
                "`airflow-serverless env backups --env {environment}` lists its backups, `env rollback` restores one"
            )),
            Error::SchedulerSilent(_) => Self::new(&problem_kinds::SCHEDULER_SILENT, detail),
            Error::Database { .. } => Self::new(&problem_kinds::DATABASE_UNAVAILABLE, detail)
                .hint("check that the server in the connection string is running and accepts connections from Modal"),
            Error::InvalidCredentials(faults) => Self::new(&problem_kinds::INVALID_CREDENTIALS, detail)
                .errors(faults)
                .hint("create a token on Modal's website under Settings, API Tokens"),
            Error::Modal(ModalError::NoCredentials) => Self::new(&problem_kinds::NO_CREDENTIALS, detail)
                .hint("`airflow-serverless auth login` stores them; `target: local` needs none"),
            Error::Modal(ModalError::Client(error)) if error.is_refusal() => {
                Self::new(&problem_kinds::CREDENTIALS_REFUSED, format!("Modal refuses the credentials: {error}"))
                    .hint("`airflow-serverless auth login` replaces them; `auth status` shows the stored ones")
            }
            Error::Modal(ModalError::Client(error)) if error.is_unreachable() => {
                Self::new(&problem_kinds::MODAL_UNREACHABLE, detail)
                    .hint("check that this machine is online, then retry")
            }
            Error::WatchNotFound(_) => Self::new(&problem_kinds::WATCH_NOT_FOUND, detail)
                .hint("`airflow-serverless watch list` shows the watches"),
            Error::InvalidWatch(faults) => Self::new(&problem_kinds::INVALID_WATCH, detail).errors(faults),
            Error::WatchDiffers(_) => Self::new(&problem_kinds::WATCH_EXISTS, detail)
                .hint("`airflow-serverless watch remove DIR` removes the watch; its files stay on the Volume. Then add it again"),
            Error::WatchOverlaps(..) | Error::WatchConflicts { .. } => {
                Self::new(&problem_kinds::WATCH_CONFLICT, detail).hint(WATCH_HINT)
            }
            Error::TooManyWatches(_) => {
                Self::new(&problem_kinds::TOO_MANY_WATCHES, detail).hint(WATCH_HINT)
            }
            Error::TooManyUis(_) => Self::new(&problem_kinds::TOO_MANY_UIS, detail)
                .hint("stop another one: each runs until its `airflow-serverless ui` is stopped"),
            Error::UiFailed(name, _) => Self::new(&problem_kinds::UI_FAILED, detail)
                .hint(format!("start it again; `airflow-serverless env show --env {name}` shows whether the environment is healthy")),
            Error::Modal(_)
            | Error::Runtime(_)
            | Error::Store(_)
            | Error::Description(_)
            | Error::Files { .. }
            | Error::Watch(_) => {
                tracing::error!(error = detail, "a request failed");
                Self::new(&problem_kinds::INTERNAL, detail)
                    .hint("`airflow-serverless daemon logs` shows more")
            }
        }
    }
}

pub(super) async fn no_such_route(uri: Uri) -> Failure {
    let detail = format!("there is nothing at {}", uri.path());
    Failure::new(&problem_kinds::NO_SUCH_ROUTE, detail).hint("/openapi.json lists all routes")
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Failure {
    let detail = format!("{} does not take {method}", uri.path());
    Failure::new(&problem_kinds::NO_SUCH_METHOD, detail).hint("/openapi.json lists all routes")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, io};

    use uuid::Uuid;

    use super::*;
    use crate::{error::NoLog, modal::CredentialsError, runtime::RuntimeError, store::StoreError};

    fn fault(location: &str, line: u32, message: &str) -> Fault {
        Fault { line: Some(line), ..Fault::new(location, message) }
    }

    /// One of each kind of error.
    fn errors() -> Vec<Error> {
        let dev = || "dev".parse().expect("a name");
        let text = str::to_owned;
        let faults = || vec![fault("scheduler.interval_seconds", 4, "must be greater than 0")];
        let (dag, run, task) = (|| text("etl"), || text("manual__1"), || text("load"));
        let broken = || io::Error::from(io::ErrorKind::PermissionDenied);
        let refused = |subject, reason, message: &str| Error::Refused { subject, reason, message: text(message) };
        let mut errors = vec![
            Error::InvalidConfig(faults()),
            Error::EnvironmentNotFound(dev()),
            Error::NotDeployed(dev()),
            Error::NotAdopted(dev(), text("the description on its Volume is of a newer version")),
            Error::Description(text("expected value at line 1 column 1")),
            Error::EnvironmentDiffers(dev()),
            Error::EnvironmentNotReady(dev(), None),
            Error::EnvironmentNotReady(dev(), Some(text("deploying (step 6 of 7)"))),
            Error::EnvironmentDeleting(dev()),
            Error::DeletionNotCancelled(dev()),
            Error::PreconditionFailed(text("environment dev")),
            Error::IdempotencyKeyInUse,
            Error::IdempotencyKeyReused,
            Error::OperationNotFound(Uuid::nil()),
            Error::InvalidFileName(text("a b.py"), "use letters, digits, `_`, `-` and `.`"),
            Error::FileExists(text("etl.py"), dev()),
            Error::FileNotFound(text("etl.py"), dev()),
            Error::InvalidDagFile { file: text("etl.py"), faults: vec![fault("etl.py", 3, "SyntaxError")] },
            Error::DagNotFound(dag(), dev()),
            Error::SharedFile { file: text("etl.py"), others: vec![text("other"), text("third")] },
            Error::RunNotFound(dag(), run()),
            Error::InvalidRunId(text("a/b"), "it has a `/`"),
            Error::NoBackup(dev()),
            Error::SchedulerSilent(90),
            Error::SchedulerFailed(dev(), text("the database is damaged")),
            Error::TooManyUis(4),
            Error::UiFailed(dev(), text("it did not start within 300 s")),
            Error::InvalidCredentials(vec![Fault::new("token_id", "is not a Modal token")]),
            Error::WatchNotFound(Uuid::nil()),
            Error::InvalidWatch(vec![Fault::new("patterns[0]", "unclosed `{`")]),
            Error::WatchDiffers(text("/dags")),
            Error::WatchOverlaps(text("/dags/sql"), text("/dags")),
            Error::WatchConflicts { directory: text("/new"), other: text("/dags"), file: text("etl.py"), count: 3 },
            Error::TooManyWatches(100),
            Error::Watch(text("no space left for inotify watches")),
            Error::Modal(ModalError::NoCredentials),
            Error::Modal(ModalError::Credentials(CredentialsError::Files {
                action: "reading",
                path: text("credentials.toml"),
                source: broken(),
            })),
            Error::Runtime(RuntimeError::NoPython { tried: text("python3") }),
            Error::Store(StoreError::Query { operation: "listing the environments", source: sqlx::Error::PoolClosed }),
            Error::DatabaseMissing(dev()),
            Error::Metadata { environment: dev(), source: sqlx::Error::PoolClosed },
            Error::Database { environment: dev(), message: text("connection refused") },
            Error::Files { action: "reading", path: text("config.yaml"), source: broken() },
        ];
        errors.extend(
            [
                NoLog::UnknownTask { run_id: run(), task_id: task(), known: vec![text("extract"), text("report")] },
                NoLog::Mapped { task_id: task(), count: 3 },
                NoLog::NotMapped { task_id: task(), map_index: 1 },
                NoLog::NoSuchInstance { task_id: task(), map_index: 7, count: 3 },
                NoLog::NotStarted { task_id: task(), state: None },
                NoLog::NotStarted { task_id: task(), state: Some(text("queued")) },
                NoLog::NoSuchTry { task_id: task(), try_number: 3, last: 2 },
                NoLog::NotThere { task_id: task(), try_number: 1 },
            ]
            .map(Error::LogNotFound),
        );
        let subjects = [
            Subject::Dag,
            Subject::Run,
            Subject::Task,
            Subject::Question,
            Subject::Backfill,
            Subject::Backup,
            Subject::Variable,
            Subject::Connection,
            Subject::Pool,
        ];
        for subject in subjects {
            errors.push(Error::NotFound(subject, text("x"), dev()));
            errors.push(refused(subject, Reason::Conflict, "(what the scheduler found in conflict)"));
        }
        errors.push(refused(Subject::Pool, Reason::Invalid, "(what the scheduler found invalid)"));
        errors
    }

    /// Formats it like the command line, below the type and the status.
    fn shown(failure: &Failure) -> String {
        let Problem { kind, title, status, detail, hint, errors } = failure.problem();
        let mut text = format!("{} {status} {title}\nerror: {detail}\n", kind.trim_start_matches(Problem::NAMESPACE));
        for fault in errors {
            let line = fault.line.map(|line| format!(":{line}")).unwrap_or_default();
            text.push_str(&format!("  {}{line}: {}\n", fault.location, fault.message));
        }
        text + &hint.as_ref().map(|hint| format!("hint: {hint}\n")).unwrap_or_default()
    }

    #[test]
    fn texts_of_all_errors() {
        let texts: Vec<_> = errors().into_iter().map(|error| shown(&Failure::from(error))).collect();
        insta::assert_snapshot!(texts.join("\n"));
    }

    #[test]
    fn every_error_variant_is_in_the_snapshot() {
        let name = |error: &Error| format!("{error:?}").split(['(', ' ']).next().unwrap_or_default().to_owned();
        let shown: BTreeSet<_> = errors().iter().map(name).collect();
        let source = include_str!("../error.rs");
        let declared =
            source.split("pub enum Error {").nth(1).and_then(|rest| rest.split("\n}").next()).expect("the enum");
        let is_variant =
            |line: &&str| line.starts_with("    ") && line.as_bytes().get(4).is_some_and(u8::is_ascii_uppercase);
        let variants = declared
            .lines()
            .filter(is_variant)
            .map(|line| line.trim().split(['(', ' ', ',']).next().expect("a name").to_owned());
        assert_eq!(variants.collect::<BTreeSet<_>>(), shown);
    }
}
