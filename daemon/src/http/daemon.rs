//! The daemon itself.

use airflow_serverless_api::daemon::{Health, Version};
use axum::Json;

/// Whether the daemon serves
#[utoipa::path(get, path = "/v1/health", tag = "daemon", responses((status = 200, body = Health)))]
pub(super) async fn get_health() -> Json<Health> {
    Json(Health { status: "ok".to_owned() })
}

/// Versions of the daemon and of what it deploys
#[utoipa::path(get, path = "/v1/version", tag = "daemon", responses((status = 200, body = Version)))]
pub(super) async fn get_version() -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        airflow_version: crate::AIRFLOW_VERSION.to_owned(),
        modal_version: crate::MODAL_VERSION.to_owned(),
        pid: std::process::id(),
    })
}
