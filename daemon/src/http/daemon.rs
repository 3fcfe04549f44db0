//! The daemon itself.

use airflow_serverless_api::{
    daemon::{Health, Version},
    routes,
};
use axum::{Json, extract::State};

use super::{
    Services,
    problem::{Answer, Failure},
    storage,
};
use crate::report::chain;

/// Check that the daemon responds
#[utoipa::path(get, path = routes::HEALTH.template, tag = "daemon", responses((status = 200, body = Health)))]
pub(super) async fn get_health() -> Json<Health> {
    Json(Health { status: "ok".to_owned() })
}

/// Check that the daemon can work: its folders are writable, and its registry and Local Modal respond
#[utoipa::path(
    get, path = routes::READINESS.template, tag = "daemon",
    responses(
        (status = 200, body = Health),
    )
)]
pub(super) async fn get_readiness(State(services): State<Services>) -> Answer<Json<Health>> {
    storage::check(&services.diagnostician.home).map_err(Failure::not_ready)?;
    services.registry.check().await.map_err(|error| Failure::not_ready(chain(&error)))?;
    Ok(Json(Health { status: "ok".to_owned() }))
}

/// Get the versions of the daemon and of what it deploys
#[utoipa::path(get, path = routes::VERSION.template, tag = "daemon", responses((status = 200, body = Version)))]
pub(super) async fn get_version() -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        airflow_version: crate::AIRFLOW_VERSION.to_owned(),
        modal_version: crate::MODAL_VERSION.to_owned(),
        pid: std::process::id(),
    })
}
