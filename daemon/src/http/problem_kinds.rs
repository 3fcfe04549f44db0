//! All problem types of the API. They are stable: programs match on them.

use axum::http::StatusCode;

/// A problem type.
pub(crate) struct Kind {
    pub status: StatusCode,
    /// The last part of its URI.
    pub name: &'static str,
    /// A short title.
    pub title: &'static str,
}

macro_rules! kinds {
    ($($constant:ident: $status:ident, $name:literal, $title:literal;)*) => {
        $(pub(crate) const $constant: Kind = Kind { status: StatusCode::$status, name: $name, title: $title };)*

        /// All problem types, for the API's description.
        pub(crate) const ALL: &[Kind] = &[$($constant),*];
    };
}

kinds! {
    // Any request.
    INVALID_HOST: BAD_REQUEST, "invalid-host", "Invalid Host header";
    INVALID_REQUEST: BAD_REQUEST, "invalid-request", "Invalid request";
    UNAUTHORIZED: UNAUTHORIZED, "unauthorized", "The request needs the daemon's token";
    ORIGIN_NOT_ALLOWED: FORBIDDEN, "origin-not-allowed", "Cross-origin request refused";
    NO_SUCH_ROUTE: NOT_FOUND, "no-such-route", "No such route";
    NO_SUCH_METHOD: METHOD_NOT_ALLOWED, "no-such-method", "No such method";
    PRECONDITION_FAILED: PRECONDITION_FAILED, "precondition-failed", "The resource has changed";
    IDEMPOTENCY_KEY_IN_USE: CONFLICT, "idempotency-key-in-use", "The request is in progress";
    IDEMPOTENCY_KEY_REUSED: UNPROCESSABLE_ENTITY, "idempotency-key-reused", "The key was used for another request";
    BODY_TOO_SLOW: REQUEST_TIMEOUT, "body-too-slow", "The body did not arrive in time";
    BODY_TOO_LARGE: PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large";
    UNSUPPORTED_MEDIA_TYPE: UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type";
    HOST_NOT_ALLOWED: MISDIRECTED_REQUEST, "host-not-allowed", "The request is for another host";
    INTERNAL: INTERNAL_SERVER_ERROR, "internal", "The daemon failed";
    NOT_READY: SERVICE_UNAVAILABLE, "not-ready", "The daemon is not ready";
    OVERLOADED: SERVICE_UNAVAILABLE, "overloaded", "Too many requests at once";
    TIME_LIMIT: GATEWAY_TIMEOUT, "time-limit", "The response took too long";

    // Environments.
    INVALID_CONFIG: UNPROCESSABLE_ENTITY, "invalid-config", "The configuration is not valid";
    ENVIRONMENT_NOT_FOUND: NOT_FOUND, "environment-not-found", "No such environment";
    ENVIRONMENT_EXISTS: CONFLICT, "environment-exists", "The environment exists";
    ENVIRONMENT_NOT_ADOPTABLE: CONFLICT, "environment-not-adoptable", "The environment cannot be adopted";
    ENVIRONMENT_NOT_READY: CONFLICT, "environment-not-ready", "The environment is not ready";
    ENVIRONMENT_DELETING: CONFLICT, "environment-deleting", "The environment is being deleted";
    OPERATION_NOT_CANCELLABLE: CONFLICT, "operation-not-cancellable", "The operation cannot be cancelled";
    OPERATION_NOT_FOUND: NOT_FOUND, "operation-not-found", "No such operation";

    // Modal.
    INVALID_CREDENTIALS: UNPROCESSABLE_ENTITY, "invalid-credentials", "The credentials are not valid";
    NO_CREDENTIALS: CONFLICT, "no-credentials", "There are no credentials for Modal";
    CREDENTIALS_REFUSED: CONFLICT, "credentials-refused", "Modal refuses the credentials";
    MODAL_UNREACHABLE: BAD_GATEWAY, "modal-unreachable", "Modal cannot be reached";

    // DAG files and DAGs.
    INVALID_FILE_NAME: UNPROCESSABLE_ENTITY, "invalid-file-name", "Invalid DAG file name";
    INVALID_DAG_FILE: UNPROCESSABLE_ENTITY, "invalid-dag-file", "The DAG file is not valid";
    DAG_FILE_EXISTS: CONFLICT, "dag-file-exists", "The DAG file exists";
    DAG_FILE_NOT_FOUND: NOT_FOUND, "dag-file-not-found", "No such DAG file";
    DAG_FILE_SHARED: CONFLICT, "dag-file-shared", "The file defines other DAGs";
    DAG_NOT_FOUND: NOT_FOUND, "dag-not-found", "No such DAG";

    // UIs.
    TOO_MANY_UIS: TOO_MANY_REQUESTS, "too-many-uis", "Too many UIs at once";
    UI_FAILED: BAD_GATEWAY, "ui-failed", "The UI failed";

    // Watches.
    WATCH_NOT_FOUND: NOT_FOUND, "watch-not-found", "No such watch";
    INVALID_WATCH: UNPROCESSABLE_ENTITY, "invalid-watch", "The watch is not valid";
    WATCH_EXISTS: CONFLICT, "watch-exists", "The folder is already watched";
    WATCH_CONFLICT: CONFLICT, "watch-conflict", "The watch conflicts with another one";
    TOO_MANY_WATCHES: CONFLICT, "too-many-watches", "Too many watches";

    // Objects of the scheduler.
    DAG_RUN_NOT_FOUND: NOT_FOUND, "dag-run-not-found", "No such DAG run";
    DAG_RUN_EXISTS: CONFLICT, "dag-run-exists", "The DAG run exists";
    INVALID_RUN_ID: UNPROCESSABLE_ENTITY, "invalid-run-id", "Invalid run id";
    TASK_INSTANCE_NOT_FOUND: NOT_FOUND, "task-instance-not-found", "No such task instance";
    TASK_INSTANCE_UNCHANGED: CONFLICT, "task-instance-unchanged", "The task is already in this state";
    QUESTION_CONFLICT: CONFLICT, "question-conflict", "The question is not open";
    LOG_NOT_FOUND: NOT_FOUND, "log-not-found", "No such log";
    BACKFILL_NOT_FOUND: NOT_FOUND, "backfill-not-found", "No such backfill";
    BACKFILL_CONFLICT: CONFLICT, "backfill-conflict", "The state of the backfill does not allow this";
    BACKUP_NOT_FOUND: NOT_FOUND, "backup-not-found", "No such backup";
    VARIABLE_NOT_FOUND: NOT_FOUND, "variable-not-found", "No such variable";
    VARIABLE_EXISTS: CONFLICT, "variable-exists", "The variable exists";
    CONNECTION_NOT_FOUND: NOT_FOUND, "connection-not-found", "No such connection";
    CONNECTION_EXISTS: CONFLICT, "connection-exists", "The connection exists";
    POOL_NOT_FOUND: NOT_FOUND, "pool-not-found", "No such pool";
    POOL_EXISTS: CONFLICT, "pool-exists", "The pool exists";
    REFUSED: UNPROCESSABLE_ENTITY, "refused", "The scheduler refused";
    DATABASE_UNAVAILABLE: BAD_GATEWAY, "database-unavailable", "The database does not respond";
    SCHEDULER_FAILED: BAD_GATEWAY, "scheduler-failed", "The scheduler is failing";
    SCHEDULER_SILENT: GATEWAY_TIMEOUT, "scheduler-silent", "The scheduler does not respond";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn problem_types_are_unique() {
        let names: HashSet<_> = ALL.iter().map(|kind| kind.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
