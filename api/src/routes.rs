//! The paths of the API: the daemon serves their templates, and the CLI fills them in.

use std::fmt::Write;

/// A path with `N` names in it, as in `/v1/environments/{environment}`.
#[derive(Clone, Copy, Debug)]
pub struct Route<const N: usize> {
    /// As OpenAPI has it, with a name in braces for each value.
    pub template: &'static str,
}

impl<const N: usize> Route<N> {
    const fn new(template: &'static str) -> Self {
        let (bytes, mut at, mut names) = (template.as_bytes(), 0, 0);
        while at < bytes.len() {
            names += (bytes[at] == b'{') as usize;
            at += 1;
        }
        assert!(names == N, "a route of another number of names");
        Self { template }
    }

    /// The path with these values, in the order of the names. Values are percent-encoded, slashes and line breaks too.
    pub fn path(&self, values: [&str; N]) -> String {
        let mut path = String::new();
        let mut values = values.into_iter();
        for (index, part) in self.template.split(['{', '}']).enumerate() {
            // Every other part was in braces.
            match (index % 2 == 1).then(|| values.next()).flatten() {
                Some(value) => encode(value, &mut path),
                None => path.push_str(part),
            }
        }
        path
    }
}

fn encode(value: &str, to: &mut String) {
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => to.push(char::from(byte)),
            // Writing to a text does not fail.
            _ => drop(write!(to, "%{byte:02X}")),
        }
    }
}

pub const HEALTH: Route<0> = Route::new("/v1/health");
pub const READINESS: Route<0> = Route::new("/v1/ready");
pub const VERSION: Route<0> = Route::new("/v1/version");
pub const METRICS: Route<0> = Route::new("/v1/metrics");
pub const DIAGNOSTICS: Route<0> = Route::new("/v1/diagnostics");
pub const EVENTS: Route<0> = Route::new("/v1/events");
pub const CREDENTIALS: Route<0> = Route::new("/v1/credentials");
pub const UIS: Route<0> = Route::new("/v1/uis");

pub const OPERATIONS: Route<0> = Route::new("/v1/operations");
pub const OPERATION: Route<1> = Route::new("/v1/operations/{operation}");
pub const OPERATION_CANCEL: Route<1> = Route::new("/v1/operations/{operation}/cancel");

pub const WATCHES: Route<0> = Route::new("/v1/watches");
pub const WATCH: Route<1> = Route::new("/v1/watches/{watch_id}");

pub const UNREGISTERED_ENVIRONMENTS: Route<0> = Route::new("/v1/unregistered-environments");
pub const ENVIRONMENTS: Route<0> = Route::new("/v1/environments");
pub const ENVIRONMENT: Route<1> = Route::new("/v1/environments/{environment}");
pub const ADOPT: Route<1> = Route::new("/v1/environments/{environment}/adopt");
pub const BACKUPS: Route<1> = Route::new("/v1/environments/{environment}/backups");
pub const COST: Route<1> = Route::new("/v1/environments/{environment}/cost");
pub const LOGS: Route<1> = Route::new("/v1/environments/{environment}/logs");
pub const LOG_STREAM: Route<1> = Route::new("/v1/environments/{environment}/logs/stream");
pub const ROLLBACK: Route<1> = Route::new("/v1/environments/{environment}/rollback");
pub const TICK: Route<1> = Route::new("/v1/environments/{environment}/tick");
pub const UI: Route<1> = Route::new("/v1/environments/{environment}/ui");

pub const DAG_FILES: Route<1> = Route::new("/v1/environments/{environment}/dags");
pub const DAG_FILE: Route<2> = Route::new("/v1/environments/{environment}/dags/files/{filename}");
pub const IMPORT_ERRORS: Route<1> = Route::new("/v1/environments/{environment}/import-errors");
pub const DAG: Route<2> = Route::new("/v1/environments/{environment}/dags/{dag_id}");

pub const RUNS: Route<1> = Route::new("/v1/environments/{environment}/runs");
pub const DAG_RUNS: Route<2> = Route::new("/v1/environments/{environment}/dags/{dag_id}/runs");
pub const DAG_RUN: Route<3> = Route::new("/v1/environments/{environment}/dags/{dag_id}/runs/{dag_run_id}");
pub const DAG_RUN_CLEAR: Route<3> = Route::new("/v1/environments/{environment}/dags/{dag_id}/runs/{dag_run_id}/clear");

pub const TASKS: Route<3> = Route::new("/v1/environments/{environment}/dags/{dag_id}/runs/{dag_run_id}/tasks");
pub const TASK: Route<4> = Route::new("/v1/environments/{environment}/dags/{dag_id}/runs/{dag_run_id}/tasks/{task_id}");
pub const TASK_CLEAR: Route<4> =
    Route::new("/v1/environments/{environment}/dags/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/clear");
pub const TASK_LOG: Route<4> =
    Route::new("/v1/environments/{environment}/dags/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/logs");
pub const TASK_LOG_STREAM: Route<4> =
    Route::new("/v1/environments/{environment}/dags/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/logs/stream");
pub const QUESTIONS: Route<1> = Route::new("/v1/environments/{environment}/hitl-details");
pub const TASK_QUESTION: Route<4> =
    Route::new("/v1/environments/{environment}/dags/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/hitl-details");

pub const BACKFILLS: Route<1> = Route::new("/v1/environments/{environment}/backfills");
pub const BACKFILLS_DRY_RUN: Route<1> = Route::new("/v1/environments/{environment}/backfills/dry_run");
pub const BACKFILL: Route<2> = Route::new("/v1/environments/{environment}/backfills/{backfill_id}");
pub const BACKFILL_PAUSE: Route<2> = Route::new("/v1/environments/{environment}/backfills/{backfill_id}/pause");
pub const BACKFILL_UNPAUSE: Route<2> = Route::new("/v1/environments/{environment}/backfills/{backfill_id}/unpause");
pub const BACKFILL_CANCEL: Route<2> = Route::new("/v1/environments/{environment}/backfills/{backfill_id}/cancel");

pub const VARIABLES: Route<1> = Route::new("/v1/environments/{environment}/variables");
pub const VARIABLE: Route<2> = Route::new("/v1/environments/{environment}/variables/{key}");
pub const CONNECTIONS: Route<1> = Route::new("/v1/environments/{environment}/connections");
pub const CONNECTION: Route<2> = Route::new("/v1/environments/{environment}/connections/{connection_id}");
pub const POOLS: Route<1> = Route::new("/v1/environments/{environment}/pools");
pub const POOL: Route<2> = Route::new("/v1/environments/{environment}/pools/{name}");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_parameters_are_percent_encoded() {
        assert_eq!(VERSION.path([]), "/v1/version");
        assert_eq!(BACKUPS.path(["dev"]), "/v1/environments/dev/backups");
        let path = DAG_RUN.path(["dev", "a/b\n", "manual__2026-01-01T00:00:00+00:00"]);
        assert_eq!(path, "/v1/environments/dev/dags/a%2Fb%0A/runs/manual__2026-01-01T00%3A00%3A00%2B00%3A00");
        assert_eq!(POOL.path(["dev", "ä {x}.~"]), "/v1/environments/dev/pools/%C3%A4%20%7Bx%7D.~");
    }
}
