//! The REST API: [`router`] reads as its table of contents. Handlers extract, make one call and wrap the answer.

mod backfills;
mod connections;
mod daemon;
mod dags;
mod diagnostics;
mod environments;
mod extract;
mod operations;
mod pools;
mod problem;
mod runs;
mod tasks;
mod variables;

use std::sync::Arc;

use airflow_serverless_api::daemon::VERSION_HEADER;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderName, HeaderValue},
};
use tower_http::{set_header::SetResponseHeaderLayer, trace::TraceLayer};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    airflow::{Airflow, MAX_FILE_BYTES},
    diagnostics::Diagnostician,
    registry::Registry,
};

/// What the handlers work with.
#[derive(Clone)]
pub struct Services {
    pub registry: Registry,
    pub airflow: Arc<Airflow>,
    pub diagnostician: Arc<Diagnostician>,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "airflowd",
    description = "Airflow without servers: environments, DAGs and runs on Modal.",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct Document;

/// Beyond the largest DAG file; the files' own limit answers with a better message.
const MAX_BODY_BYTES: usize = MAX_FILE_BYTES + (64 << 10);

/// On each answer, so that a client of another version can tell.
const VERSION: HeaderName = HeaderName::from_static(VERSION_HEADER);

fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(daemon::get_health))
        .routes(routes!(daemon::get_version))
        .routes(routes!(diagnostics::run_diagnostics))
        .routes(routes!(environments::list_environments, environments::create_environment))
        .routes(routes!(environments::get_environment, environments::update_environment))
        .routes(routes!(operations::get_operation))
        .routes(routes!(dags::list_dag_files))
        .routes(routes!(dags::put_dag_file, dags::delete_dag_file))
        .routes(routes!(dags::list_import_errors))
        .routes(routes!(dags::get_dag, dags::update_dag, dags::delete_dag))
        .routes(routes!(runs::trigger_dag_run))
        .routes(routes!(runs::list_dag_runs))
        .routes(routes!(runs::get_dag_run, runs::update_dag_run))
        .routes(routes!(runs::clear_dag_run))
        .routes(routes!(tasks::list_task_instances))
        .routes(routes!(tasks::update_task_instance))
        .routes(routes!(tasks::clear_task_instances))
        .routes(routes!(tasks::get_task_log))
        .routes(routes!(backfills::list_backfills, backfills::create_backfill))
        .routes(routes!(backfills::dry_run_backfill))
        .routes(routes!(backfills::get_backfill))
        .routes(routes!(backfills::pause_backfill))
        .routes(routes!(backfills::unpause_backfill))
        .routes(routes!(backfills::cancel_backfill))
        .routes(routes!(variables::list_variables, variables::put_variables))
        .routes(routes!(variables::get_variable, variables::delete_variable))
        .routes(routes!(connections::list_connections, connections::put_connections))
        .routes(routes!(connections::get_connection, connections::delete_connection))
        .routes(routes!(pools::list_pools, pools::put_pools))
        .routes(routes!(pools::get_pool, pools::delete_pool))
}

/// The whole API.
pub fn router(services: Services) -> Router {
    let (router, document) = routes().split_for_parts();
    router
        .route("/openapi.json", axum::routing::get(async move || axum::Json(document)))
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(TraceLayer::new_for_http())
        .layer(SetResponseHeaderLayer::overriding(VERSION, HeaderValue::from_static(env!("CARGO_PKG_VERSION"))))
        .with_state(services)
}

/// The OpenAPI document, as it is checked in.
pub fn openapi_json() -> Result<String, serde_json::Error> {
    let (_, document) = routes().split_for_parts();
    Ok(document.to_pretty_json()? + "\n")
}
