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

/// Backups of the metadata database in SQLite, newest first
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

/// Loads a backup in place of the metadata database: what has happened since is lost, and tasks that run are ended
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
