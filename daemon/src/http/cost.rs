//! What an environment costs.

use airflow_serverless_api::{
    cost::{Cost, EstimateCost},
    environment::EnvironmentName,
    routes,
};
use axum::{Json, extract::State};

use super::{
    Services,
    extract::{Path, Query},
    problem::Answer,
};

/// Estimate what an environment has cost
#[utoipa::path(
    get, path = routes::COST.template, tag = "environments",
    params(("environment" = EnvironmentName, Path), EstimateCost),
    responses((status = 200, body = Cost))
)]
pub(super) async fn estimate_cost(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    Query(query): Query<EstimateCost>,
) -> Answer<Json<Cost>> {
    Ok(Json(services.deployed(&environment).await?.cost(query).await?))
}
