//! Backups of the metadata database.

use airflow_serverless_api::{
    backup::{BackupList, RollBack, RolledBack},
    environment::EnvironmentName,
    routes,
};
use axum::{Json, extract::State};

use super::{
    Services,
    extract::{self, Path},
    problem::Answer,
};

/// List backups of the SQLite metadata database, newest first
#[utoipa::path(
    get, path = routes::BACKUPS.template, tag = "environments",
    params(("environment" = EnvironmentName, Path)),
    responses((status = 200, body = BackupList))
)]
pub(super) async fn list_backups(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
) -> Answer<Json<BackupList>> {
    Ok(Json(services.airflow.wanted(&environment).await?.list_backups().await?))
}

/// Restore the metadata database from a backup: later changes are lost and running tasks are stopped
#[utoipa::path(
    post, path = routes::ROLLBACK.template, tag = "environments", request_body = RollBack,
    params(("environment" = EnvironmentName, Path)),
    responses((status = 200, body = RolledBack))
)]
pub(super) async fn roll_back(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    extract::Json(request): extract::Json<RollBack>,
) -> Answer<Json<RolledBack>> {
    Ok(Json(services.airflow.wanted(&environment).await?.roll_back(request.backup).await?))
}
