//! The one place where errors become statuses and RFC 9457 problems.

use airflow_serverless_api::problem::{Fault, MEDIA_TYPE, Problem};
use axum::{
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

pub(super) use super::kinds;
use super::kinds::Kind;
use crate::{
    error::{Error, Reason, Subject},
    modal::ModalError,
    report::chain,
};

const DAGS_HINT: &str = "`airflow-serverless dags list` shows the DAGs of an environment, import errors included";

const RUNS_HINT: &str = "`airflow-serverless runs list` shows the runs";

const QUESTIONS_HINT: &str = "`airflow-serverless tasks questions` shows the questions that wait";

const OVERWRITE_HINT: &str = "`overwrite` as the action on existing ones replaces them, `skip` leaves them as they are";

const WATCH_HINT: &str = "`airflow-serverless watch remove DIR` ends the other watch; its files stay on the Volume";

/// An answer that is a problem.
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

    /// As it is told in the middle of an answer.
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
            Subject::Dag => (kinds::DAG_NOT_FOUND, DAGS_HINT),
            Subject::Run => (kinds::DAG_RUN_NOT_FOUND, RUNS_HINT),
            Subject::Task => {
                (kinds::TASK_INSTANCE_NOT_FOUND, "`airflow-serverless runs show` shows the tasks of a run")
            }
            Subject::Question => (kinds::TASK_INSTANCE_NOT_FOUND, QUESTIONS_HINT),
            Subject::Backfill => (kinds::BACKFILL_NOT_FOUND, "`airflow-serverless backfills list` shows the backfills"),
            Subject::Backup => (kinds::BACKUP_NOT_FOUND, "`airflow-serverless env backups` shows the backups"),
            Subject::Variable => (kinds::VARIABLE_NOT_FOUND, "`airflow-serverless variables list` shows the variables"),
            Subject::Connection => {
                (kinds::CONNECTION_NOT_FOUND, "`airflow-serverless connections list` shows the connections")
            }
            Subject::Pool => (kinds::POOL_NOT_FOUND, "`airflow-serverless pools list` shows the pools"),
        };
        Self::new(&kind, detail).hint(hint)
    }

    fn conflict(subject: Subject, detail: String) -> Self {
        let (kind, hint) = match subject {
            Subject::Dag | Subject::Run => (kinds::DAG_RUN_EXISTS, RUNS_HINT),
            Subject::Task => (kinds::TASK_INSTANCE_UNCHANGED, "`airflow-serverless tasks clear` lets it run again"),
            Subject::Question => (kinds::QUESTION_CONFLICT, QUESTIONS_HINT),
            // Nothing about a backup can be in conflict with another one.
            Subject::Backup => (kinds::REFUSED, "`airflow-serverless env backups` shows the backups"),
            Subject::Backfill => (
                kinds::BACKFILL_CONFLICT,
                "`airflow-serverless backfills list` shows the backfills, `backfills cancel` ends one",
            ),
            Subject::Variable => (kinds::VARIABLE_EXISTS, OVERWRITE_HINT),
            Subject::Connection => (
                kinds::CONNECTION_EXISTS,
                "`airflow-serverless connections delete` removes it first, `connections import --overwrite` replaces it",
            ),
            Subject::Pool => (kinds::POOL_EXISTS, OVERWRITE_HINT),
        };
        Self::new(&kind, detail).hint(hint)
    }

    /// The daemon serves, but cannot do its work.
    pub(super) fn not_ready(detail: String) -> Self {
        Self::new(&kinds::NOT_READY, detail).hint("its log shows more: `airflow-serverless daemon status` names it")
    }

    /// A request that does not fit the API, by the status that the extractor has found for it.
    pub(super) fn invalid_request(status: StatusCode, detail: String) -> Self {
        let kind = match status {
            StatusCode::PAYLOAD_TOO_LARGE => kinds::BODY_TOO_LARGE,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => kinds::UNSUPPORTED_MEDIA_TYPE,
            _ => Kind { status, ..kinds::INVALID_REQUEST },
        };
        Self::new(&kind, detail).hint("see /openapi.json for what is expected")
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
            Error::InvalidConfig(faults) => Self::new(&kinds::INVALID_CONFIG, detail).errors(faults),
            Error::EnvironmentNotFound(name) => Self::new(&kinds::ENVIRONMENT_NOT_FOUND, detail).hint(format!(
                "`airflow-serverless create --env {name} --config config.yaml` creates it, \
                     `airflow-serverless env adopt --env {name}` registers it again if it is still on Modal; \
                     `airflow-serverless env list` shows those that exist"
            )),
            Error::NotDeployed(name) => Self::new(&kinds::ENVIRONMENT_NOT_FOUND, detail).hint(format!(
                "`airflow-serverless create --env {name} --config config.yaml` creates it; after an \
                     `env delete` without `--purge` that finds its data again, and a deletion with `--purge` removes them"
            )),
            Error::NotAdopted(name, _) => Self::new(&kinds::ENVIRONMENT_NOT_ADOPTABLE, detail).hint(format!(
                "`airflow-serverless create --env {name} --config config.yaml` with its configuration takes it over; \
                     its data stay"
            )),
            Error::EnvironmentDiffers(name) => Self::new(&kinds::ENVIRONMENT_EXISTS, detail).hint(format!(
                "`airflow-serverless create --env {name} --config FILE --update` applies the new configuration"
            )),
            Error::EnvironmentNotReady(name, _) => Self::new(&kinds::ENVIRONMENT_NOT_READY, detail)
                .hint(format!("`airflow-serverless env show --env {name}` shows its state")),
            Error::OperationNotFound(_) => Self::new(&kinds::OPERATION_NOT_FOUND, detail),
            Error::InvalidFileName(..) => Self::new(&kinds::INVALID_FILE_NAME, detail),
            Error::FileExists(..) => {
                Self::new(&kinds::DAG_FILE_EXISTS, detail).hint("`airflow-serverless dags update` overwrites it")
            }
            Error::EnvironmentDeleting(name) => Self::new(&kinds::ENVIRONMENT_DELETING, detail).hint(format!(
                "`airflow-serverless env show --env {name}` shows the progress; afterwards it can be created again"
            )),
            Error::DeletionNotCancelled(_) => Self::new(&kinds::OPERATION_NOT_CANCELLABLE, detail),
            Error::PreconditionFailed(_) => Self::new(&kinds::PRECONDITION_FAILED, detail)
                .hint("read it again, and repeat the change with the new ETag if it is still wanted"),
            Error::IdempotencyKeyInUse => Self::new(&kinds::IDEMPOTENCY_KEY_IN_USE, detail)
                .hint("wait for its answer, or send it again with the same key in a moment"),
            Error::IdempotencyKeyReused => Self::new(&kinds::IDEMPOTENCY_KEY_REUSED, detail)
                .hint("choose a new key for each request, such as a UUID"),
            Error::FileNotFound(..) => Self::new(&kinds::DAG_FILE_NOT_FOUND, detail)
                .hint("`airflow-serverless dags create` uploads a new file"),
            Error::InvalidDagFile { faults, .. } => Self::new(&kinds::INVALID_DAG_FILE, detail)
                .errors(faults)
                .hint("nothing was uploaded; correct the file and try again"),
            Error::DagNotFound(..) => Self::new(&kinds::DAG_NOT_FOUND, detail).hint(DAGS_HINT),
            Error::SharedFile { .. } => {
                Self::new(&kinds::DAG_FILE_SHARED, detail).hint("`--force` removes the file with all of its DAGs")
            }
            Error::RunNotFound(..) => Self::new(&kinds::DAG_RUN_NOT_FOUND, detail).hint(RUNS_HINT),
            Error::InvalidRunId(..) => {
                Self::new(&kinds::INVALID_RUN_ID, detail).hint("leave it out, and Airflow chooses one")
            }
            Error::LogNotFound(why) => Self::new(&kinds::LOG_NOT_FOUND, detail).hint(why.hint()),
            Error::NoBackup(name) => Self::new(&kinds::BACKUP_NOT_FOUND, detail).hint(format!(
                "databases that were replaced are restored by name: `airflow-serverless env backups --env {name}` lists \
                 them, `env rollback --backup NAME` restores one. If there is none and the database is damaged, \
                 `env delete --purge` and `create` begin anew: runs, variables, connections and DAG files are lost"
            )),
            Error::NotFound(subject, ..) | Error::Refused { subject, reason: Reason::NotFound, .. } => {
                Self::not_found(*subject, detail)
            }
            Error::Refused { subject, reason: Reason::Conflict, .. } => Self::conflict(*subject, detail),
            Error::Refused { reason: Reason::Invalid, .. } => Self::new(&kinds::REFUSED, detail),
            Error::SchedulerFailed(name, _) => Self::new(&kinds::SCHEDULER_FAILED, detail)
                .hint(format!("`airflow-serverless env show --env {name}` tells how it is; \
                     `airflow-serverless env rollback --env {name}` loads a backup of a damaged database")),
            Error::Metadata { environment, .. } => Self::new(&kinds::DATABASE_UNAVAILABLE, detail)
                .hint(format!("`airflow-serverless env show --env {environment}` shows if the database is damaged")),
            Error::DatabaseMissing(environment) => Self::new(&kinds::DATABASE_UNAVAILABLE, detail).hint(format!(
                "`airflow-serverless env backups --env {environment}` lists its backups, `env rollback` loads one"
            )),
            Error::SchedulerSilent(_) => Self::new(&kinds::SCHEDULER_SILENT, detail),
            Error::Database { .. } => Self::new(&kinds::DATABASE_UNAVAILABLE, detail)
                .hint("see whether the server of the connection string runs, and lets Modal in"),
            Error::InvalidCredentials(faults) => Self::new(&kinds::INVALID_CREDENTIALS, detail)
                .errors(faults)
                .hint("Modal's web site makes tokens, under Settings, API Tokens"),
            Error::Modal(ModalError::NoCredentials) => Self::new(&kinds::NO_CREDENTIALS, detail)
                .hint("`airflow-serverless auth login` stores them; `target: local` needs none"),
            Error::Modal(ModalError::Client(error)) if error.is_refusal() => {
                Self::new(&kinds::CREDENTIALS_REFUSED, format!("Modal refuses the credentials: {error}"))
                    .hint("`airflow-serverless auth login` stores others; `auth status` names those that are stored")
            }
            Error::Modal(ModalError::Client(error)) if error.is_unreachable() => {
                Self::new(&kinds::MODAL_UNREACHABLE, detail)
                    .hint("see whether this machine is online; what was asked for can be asked for again")
            }
            Error::WatchNotFound(_) => Self::new(&kinds::WATCH_NOT_FOUND, detail)
                .hint("`airflow-serverless watch list` shows the watches"),
            Error::InvalidWatch(faults) => Self::new(&kinds::INVALID_WATCH, detail).errors(faults),
            Error::WatchDiffers(_) => Self::new(&kinds::WATCH_EXISTS, detail).hint(WATCH_HINT),
            Error::WatchOverlaps(..) | Error::WatchConflicts { .. } => {
                Self::new(&kinds::WATCH_CONFLICT, detail).hint(WATCH_HINT)
            }
            Error::TooManyWatches(_) => {
                Self::new(&kinds::TOO_MANY_WATCHES, detail).hint(WATCH_HINT)
            }
            Error::TooManyUis(_) => Self::new(&kinds::TOO_MANY_UIS, detail)
                .hint("end another one: each runs until its `airflow-serverless ui` is ended"),
            Error::UiFailed(name, _) => Self::new(&kinds::UI_FAILED, detail)
                .hint(format!("start it again; `airflow-serverless env show --env {name}` shows if the environment is healthy")),
            Error::Modal(_)
            | Error::Runtime(_)
            | Error::Store(_)
            | Error::Description(_)
            | Error::Files { .. }
            | Error::Watch(_) => {
                tracing::error!(error = detail, "a request failed");
                Self::new(&kinds::INTERNAL, detail)
                    .hint("the daemon's log has more: `airflow-serverless daemon status` shows where it is")
            }
        }
    }
}

pub(super) async fn no_such_route(uri: Uri) -> Failure {
    let detail = format!("there is nothing at {}", uri.path());
    Failure::new(&kinds::NO_SUCH_ROUTE, detail).hint("see /openapi.json")
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Failure {
    let detail = format!("{} does not take {method}", uri.path());
    Failure::new(&kinds::NO_SUCH_METHOD, detail).hint("see /openapi.json")
}
