//! The daemon's look after itself.

use airflow_serverless_api::{diagnostics::Diagnostics, routes};
use axum::{Json, extract::State};

use super::{Services, problem::Answer};

/// Looks whether all that the daemon needs is there and works; a file is written to each Volume, and removed again
#[utoipa::path(
    post, path = routes::DIAGNOSTICS.template, tag = "daemon",
    responses(
        (status = 200, body = Diagnostics),
    )
)]
pub(super) async fn run_diagnostics(State(services): State<Services>) -> Answer<Json<Diagnostics>> {
    Ok(Json(services.diagnostician.diagnose().await?))
}
