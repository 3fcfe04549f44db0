//! Diagnostics of the installation.

use airflow_serverless_api::{diagnostics::Diagnostics, routes};
use axum::{Json, extract::State};

use super::{Services, problem::Answer};

/// Check the installation; writes a file to each Volume and deletes it again
#[utoipa::path(
    post, path = routes::DIAGNOSTICS.template, tag = "daemon",
    responses(
        (status = 200, body = Diagnostics),
    )
)]
pub(super) async fn run_diagnostics(State(services): State<Services>) -> Answer<Json<Diagnostics>> {
    Ok(Json(services.diagnostician.diagnose().await?))
}
