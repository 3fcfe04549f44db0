//! Variables.

use airflow_serverless_api::{
    environment::EnvironmentName,
    page::{Page, ShowOne, Written},
    variable::{PutVariables, Variable, VariableList},
};
use axum::{Json, extract::State, http::StatusCode};

use super::{
    Services,
    extract::{self, Path, Query},
    problem::Answer,
};

/// List variables by key, without values unless requested
#[utoipa::path(
    get, path = "/v1/environments/{environment}/variables", tag = "variables",
    params(("environment" = EnvironmentName, Path), Page),
    responses((status = 200, body = VariableList))
)]
pub(super) async fn list_variables(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    Query(page): Query<Page>,
) -> Answer<Json<VariableList>> {
    Ok(Json(services.airflow.list_variables(&environment, &page).await?))
}

/// Create or replace variables: all or none
#[utoipa::path(
    post, path = "/v1/environments/{environment}/variables", tag = "variables", request_body = PutVariables,
    params(("environment" = EnvironmentName, Path)),
    responses((status = 200, body = Written))
)]
pub(super) async fn put_variables(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    extract::Json(request): extract::Json<PutVariables>,
) -> Answer<Json<Written>> {
    Ok(Json(services.airflow.put_variables(&environment, &request).await?))
}

/// Get a variable
#[utoipa::path(
    get, path = "/v1/environments/{environment}/variables/{key}", tag = "variables",
    params(("environment" = EnvironmentName, Path), ("key" = String, Path), ShowOne),
    responses((status = 200, body = Variable))
)]
pub(super) async fn get_variable(
    State(services): State<Services>,
    Path((environment, key)): Path<(EnvironmentName, String)>,
    Query(show): Query<ShowOne>,
) -> Answer<Json<Variable>> {
    Ok(Json(services.airflow.variable(&environment, &key, show).await?))
}

/// Delete a variable
#[utoipa::path(
    delete, path = "/v1/environments/{environment}/variables/{key}", tag = "variables",
    params(("environment" = EnvironmentName, Path), ("key" = String, Path)),
    responses((status = 204))
)]
pub(super) async fn delete_variable(
    State(services): State<Services>,
    Path((environment, key)): Path<(EnvironmentName, String)>,
) -> Answer<StatusCode> {
    services.airflow.delete_variable(&environment, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}
