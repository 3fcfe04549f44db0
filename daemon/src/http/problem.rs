//! The one place where errors become statuses and RFC 9457 problems.

use airflow_serverless_api::problem::{Fault, MEDIA_TYPE, Problem};
use axum::{
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

use crate::error::{Error, Reason, Subject, chain};

const DAGS_HINT: &str = "`airflow-serverless dags list` shows the DAGs of an environment, import errors included";

const OVERWRITE_HINT: &str = "`overwrite` as the action on existing ones replaces them, `skip` leaves them as they are";

const WATCH_HINT: &str = "`airflow-serverless watch remove DIR` ends the other watch; its files stay on the Volume";

/// An answer that is a problem.
pub(super) struct Failure(Box<Problem>);

pub(super) type Answer<T> = Result<T, Failure>;

impl Failure {
    fn new(status: StatusCode, kind: &str, title: &str, detail: String) -> Self {
        Self(Box::new(Problem {
            kind: format!("{}{kind}", Problem::NAMESPACE),
            title: title.to_owned(),
            status: status.as_u16(),
            detail,
            hint: None,
            errors: Vec::new(),
        }))
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    fn errors(mut self, errors: &[Fault]) -> Self {
        self.0.errors = errors.to_vec();
        self
    }

    fn not_found(subject: Subject, detail: String) -> Self {
        let (kind, hint) = match subject {
            Subject::Dag => ("dag-not-found", DAGS_HINT),
            Subject::Run => ("dag-run-not-found", "`airflow-serverless runs list` shows the runs"),
            Subject::Task => ("task-instance-not-found", "`airflow-serverless runs show` shows the tasks of a run"),
            Subject::Backfill => ("backfill-not-found", "`airflow-serverless backfills list` shows the backfills"),
            Subject::Variable => ("variable-not-found", "`airflow-serverless variables list` shows the variables"),
            Subject::Connection => {
                ("connection-not-found", "`airflow-serverless connections list` shows the connections")
            }
            Subject::Pool => ("pool-not-found", "`airflow-serverless pools list` shows the pools"),
        };
        Self::new(StatusCode::NOT_FOUND, kind, &format!("No such {}", subject.noun()), detail).hint(hint)
    }

    fn conflict(subject: Subject, detail: String) -> Self {
        let (kind, title, hint) = match subject {
            Subject::Dag | Subject::Run => {
                ("dag-run-exists", "The DAG run exists", "`airflow-serverless runs list` shows the runs")
            }
            Subject::Task => (
                "task-instance-unchanged",
                "The task is in this state already",
                "`airflow-serverless tasks clear` lets it run again",
            ),
            Subject::Backfill => (
                "backfill-conflict",
                "The state of a backfill does not allow it",
                "`airflow-serverless backfills list` shows the backfills, `backfills cancel` ends one",
            ),
            Subject::Variable => ("variable-exists", "The variable exists", OVERWRITE_HINT),
            Subject::Connection => (
                "connection-exists",
                "The connection exists",
                "`airflow-serverless connections delete` removes it first, `connections import --overwrite` replaces it",
            ),
            Subject::Pool => ("pool-exists", "The pool exists", OVERWRITE_HINT),
        };
        Self::new(StatusCode::CONFLICT, kind, title, detail).hint(hint)
    }

    /// A request that does not fit the API.
    pub(super) fn invalid_request(status: StatusCode, detail: String) -> Self {
        Self::new(status, "invalid-request", "The request does not fit the API", detail)
            .hint("see /openapi.json for what is expected")
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], axum::Json(self.0)).into_response()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        use StatusCode as S;
        let detail = chain(&error);
        match &error {
            Error::InvalidConfig(faults) => {
                Self::new(S::UNPROCESSABLE_ENTITY, "invalid-config", "The configuration is not valid", detail)
                    .errors(faults)
            }
            Error::EnvironmentNotFound(name) => {
                Self::new(S::NOT_FOUND, "environment-not-found", "No such environment", detail).hint(format!(
                    "`airflow-serverless create --env {name} --config config.yaml` creates it; \
                     `airflow-serverless env list` shows those that exist"
                ))
            }
            Error::EnvironmentDiffers(name) => {
                Self::new(S::CONFLICT, "environment-exists", "The environment exists", detail).hint(format!(
                    "`airflow-serverless create --env {name} --config FILE --update` applies the new configuration"
                ))
            }
            Error::EnvironmentNotReady(name, _) => {
                Self::new(S::CONFLICT, "environment-not-ready", "The environment is not ready", detail)
                    .hint(format!("`airflow-serverless env show --env {name}` tells its state"))
            }
            Error::OperationNotFound(_) => Self::new(S::NOT_FOUND, "operation-not-found", "No such operation", detail),
            Error::InvalidFileName(..) => {
                Self::new(S::UNPROCESSABLE_ENTITY, "invalid-file-name", "Not a name for a DAG file", detail)
            }
            Error::FileExists(..) => Self::new(S::CONFLICT, "dag-file-exists", "The DAG file exists", detail)
                .hint("`airflow-serverless dags update` overwrites it"),
            Error::FileNotFound(..) => Self::new(S::NOT_FOUND, "dag-file-not-found", "No such DAG file", detail)
                .hint("`airflow-serverless dags create` uploads a new file"),
            Error::InvalidDagFile { faults, .. } => {
                Self::new(S::UNPROCESSABLE_ENTITY, "invalid-dag-file", "The DAG file is not valid", detail)
                    .errors(faults)
                    .hint("nothing was uploaded; correct the file and try again")
            }
            Error::DagNotFound(..) => Self::new(S::NOT_FOUND, "dag-not-found", "No such DAG", detail).hint(DAGS_HINT),
            Error::SharedFile { .. } => Self::new(S::CONFLICT, "dag-file-shared", "The file has other DAGs", detail)
                .hint("`--force` removes the file with all of its DAGs"),
            Error::RunNotFound(..) => Self::new(S::NOT_FOUND, "dag-run-not-found", "No such DAG run", detail)
                .hint("`airflow-serverless runs list` shows the runs"),
            Error::InvalidRunId(..) => {
                Self::new(S::UNPROCESSABLE_ENTITY, "invalid-run-id", "Not an id for a DAG run", detail)
                    .hint("leave it out, and Airflow chooses one")
            }
            Error::LogNotFound { .. } => Self::new(S::NOT_FOUND, "log-not-found", "No such log", detail)
                .hint("a try has a log once it has started"),
            Error::NotFound(subject, ..) | Error::Refused { subject, reason: Reason::NotFound, .. } => {
                Self::not_found(*subject, detail)
            }
            Error::Refused { subject, reason: Reason::Conflict, .. } => Self::conflict(*subject, detail),
            Error::Refused { reason: Reason::Invalid, .. } => {
                Self::new(S::UNPROCESSABLE_ENTITY, "refused", "The scheduler refused", detail)
            }
            Error::WatchNotFound(_) => Self::new(S::NOT_FOUND, "watch-not-found", "No such watch", detail)
                .hint("`airflow-serverless watch list` shows the watches"),
            Error::InvalidWatch(faults) => {
                Self::new(S::UNPROCESSABLE_ENTITY, "invalid-watch", "The watch is not valid", detail).errors(faults)
            }
            Error::WatchDiffers(_) => {
                Self::new(S::CONFLICT, "watch-exists", "The folder is watched", detail).hint(WATCH_HINT)
            }
            Error::WatchOverlaps(..) | Error::WatchConflicts { .. } => {
                Self::new(S::CONFLICT, "watch-conflict", "Another watch has these files", detail).hint(WATCH_HINT)
            }
            Error::TooManyWatches(_) => {
                Self::new(S::CONFLICT, "too-many-watches", "Too many watches", detail).hint(WATCH_HINT)
            }
            Error::SchedulerSilent(_) => {
                Self::new(S::GATEWAY_TIMEOUT, "scheduler-silent", "No answer from the scheduler", detail)
            }
            Error::Database { .. } => {
                Self::new(S::BAD_GATEWAY, "database-unavailable", "No answer from the database", detail)
                    .hint("see whether the server of the connection string runs, and lets Modal in")
            }
            Error::Modal(_)
            | Error::Runtime(_)
            | Error::Store(_)
            | Error::Metadata { .. }
            | Error::Files { .. }
            | Error::Watch(_) => {
                tracing::error!(error = detail, "a request failed");
                Self::new(S::INTERNAL_SERVER_ERROR, "internal", "The daemon failed", detail)
                    .hint("the daemon's log has more: `airflow-serverless daemon status` tells where it is")
            }
        }
    }
}

pub(super) async fn no_such_route(uri: Uri) -> Failure {
    let detail = format!("there is nothing at {}", uri.path());
    Failure::new(StatusCode::NOT_FOUND, "no-such-route", "No such route", detail).hint("see /openapi.json")
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Failure {
    let detail = format!("{} does not take {method}", uri.path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "no-such-method", "No such method", detail).hint("see /openapi.json")
}
