//! The REST API: [`router`] reads as its table of contents. Handlers extract, make one call and wrap the result.

mod auth;
mod backfills;
mod backups;
mod connections;
mod cost;
mod credentials;
mod daemon;
mod dags;
mod detached;
mod diagnostics;
mod document;
mod environments;
mod etag;
mod events;
mod extract;
mod gone;
mod idempotency;
mod limits;
mod logs;
mod metrics;
mod operations;
mod page;
mod pools;
mod problem;
mod problem_kinds;
mod questions;
mod request_id;
mod runs;
mod storage;
mod tasks;
mod ui;
mod variables;
mod watches;

use std::{ops::Deref, sync::Arc};

use airflow_serverless_api::environment::EnvironmentName;
use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt},
    routes,
};

pub use auth::ListenerKind;

use tokio_util::sync::CancellationToken;

use crate::{
    airflow::{Airflow, Deployed},
    base::Base,
    diagnostics::Diagnostician,
    error::Result,
    metrics::Metrics,
    modal::CredentialsFile,
    registry::Registry,
    watcher::Watchers,
};

/// The dependencies of the handlers. Each layer of each request has a clone.
#[derive(Clone)]
pub struct Services(Arc<Parts>);

pub struct Parts {
    pub base: Base,
    pub registry: Registry,
    pub airflow: Arc<Airflow>,
    /// Ends open streams.
    pub stop: CancellationToken,
    pub metrics: Metrics,
    pub credentials: CredentialsFile,
    pub watchers: Arc<Watchers>,
    pub diagnostician: Diagnostician,
    under_way: idempotency::UnderWay,
}

impl Parts {
    /// Returns the handle on a deployed environment.
    async fn deployed(&self, name: &EnvironmentName) -> Result<Deployed> {
        self.airflow.deployed(name).await
    }
}

impl Services {
    pub fn new(
        (base, registry): (Base, Registry),
        (airflow, watchers): (Arc<Airflow>, Arc<Watchers>),
        diagnostician: Diagnostician,
        credentials: CredentialsFile,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> Self {
        let under_way = idempotency::UnderWay::default();
        let parts = Parts { base, registry, airflow, stop, metrics, credentials, watchers, diagnostician, under_way };
        Self(Arc::new(parts))
    }
}

impl Deref for Services {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

fn routes() -> OpenApiRouter<Services> {
    let own = || from_fn_with_state(limits::OWN_ANSWER, limits::within);
    let open = limits::streams();
    let stream = || from_fn_with_state(open.clone(), limits::stream);
    let news = || from_fn_with_state(limits::NEWS, limits::within);
    OpenApiRouter::new()
        .routes(routes!(daemon::get_health).layer(own()))
        .routes(routes!(daemon::get_readiness).layer(own()))
        .routes(routes!(daemon::get_version).layer(own()))
        .routes(routes!(metrics::get_metrics).layer(own()))
        .routes(routes!(credentials::get_credentials, credentials::put_credentials, credentials::delete_credentials))
        .routes(routes!(environments::list_environments, environments::create_environment).layer(own()))
        .routes(
            routes!(environments::get_environment, environments::update_environment, environments::delete_environment)
                .layer(own()),
        )
        .routes(routes!(environments::list_unregistered_environments))
        .routes(routes!(environments::adopt_environment))
        .routes(routes!(diagnostics::run_diagnostics))
        .routes(routes!(environments::tick_environment))
        .routes(routes!(backups::list_backups))
        .routes(routes!(backups::roll_back))
        .routes(routes!(cost::estimate_cost))
        .routes(routes!(logs::get_container_logs))
        .routes(routes!(logs::follow_container_logs).layer(stream()))
        .routes(routes!(ui::open_ui).layer(stream()))
        .routes(routes!(ui::list_uis).layer(own()))
        .routes(routes!(operations::list_operations).layer(own()))
        .routes(routes!(operations::get_operation).layer(news()))
        .routes(routes!(operations::cancel_operation).layer(own()))
        .routes(routes!(events::follow_events).layer(own()).layer(stream()))
        .routes(routes!(dags::list_dag_files))
        .routes(routes!(dags::get_dag_file, dags::put_dag_file, dags::delete_dag_file).layer(limits::file_bytes()))
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
        .routes(routes!(tasks::follow_task_log).layer(stream()))
        .routes(routes!(questions::list_questions))
        .routes(routes!(questions::answer_question))
        .routes(routes!(backfills::list_backfills, backfills::create_backfill))
        .routes(routes!(backfills::dry_run_backfill))
        .routes(routes!(backfills::get_backfill))
        .routes(routes!(backfills::pause_backfill))
        .routes(routes!(backfills::unpause_backfill))
        .routes(routes!(backfills::cancel_backfill))
        .routes(routes!(variables::list_variables, variables::put_variables).layer(limits::file_bytes()))
        .routes(routes!(variables::get_variable, variables::delete_variable))
        .routes(routes!(connections::list_connections, connections::put_connections).layer(limits::file_bytes()))
        .routes(routes!(connections::get_connection, connections::delete_connection))
        .routes(routes!(pools::list_pools, pools::put_pools).layer(limits::file_bytes()))
        .routes(routes!(pools::get_pool, pools::delete_pool))
        .routes(routes!(watches::list_watches, watches::create_watch).layer(own()))
        .routes(routes!(watches::get_watch, watches::delete_watch).layer(own()))
}

/// Builds the whole API, to be served with [`behind`].
pub fn router(services: Services) -> Router {
    let (router, document) = document::split(routes());
    router
        .route("/openapi.json", page::document(&document))
        .with_state(services.clone())
        .merge(page::routes())
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(from_fn_with_state(services.clone(), gone::explain))
        .layer(from_fn(etag::conditional))
        .layer(from_fn_with_state(Arc::new(document::blind_to_if_match(&document)), etag::refuse_unexpected))
        .layer(from_fn_with_state(services.clone(), idempotency::once))
        .layer(from_fn_with_state(services.clone(), storage::required))
        .layer(limits::json_bytes())
        .layer(from_fn_with_state(limits::ANSWER, limits::within))
        .layer(from_fn_with_state(limits::requests(), limits::shed))
        // Outside the limits, so that they hold for what goes on without its client, too.
        .layer(from_fn(detached::run_to_completion))
        .layer(from_fn_with_state(services, metrics::count))
}

/// The API as it is served at one listener: with what a request has to show there, and what all answers have.
pub fn with_listener_policy(router: Router, listener: ListenerKind) -> Router {
    router
        .layer(from_fn_with_state(listener, auth::authorize))
        .layer(CatchPanicLayer::custom(request_id::panicked))
        .layer(from_fn(request_id::add_headers))
}

/// Returns the OpenAPI document as checked in.
pub fn openapi_json() -> Result<String, serde_json::Error> {
    Ok(document::split(routes()).1.to_pretty_json()? + "\n")
}
