//! Pools.

use airflow_serverless_api::{
    environment::EnvironmentName,
    page::{Page, Written},
    pool::{Pool, PoolList, PutPools},
    routes,
};
use axum::{Json, extract::State, http::StatusCode};

use super::{
    Services,
    etag::IfMatch,
    extract::{self, Path, Query},
    problem::Answer,
};

/// List pools by name
#[utoipa::path(
    get, path = routes::POOLS.template, tag = "pools",
    params(("environment" = EnvironmentName, Path), Page),
    responses((status = 200, body = PoolList))
)]
pub(super) async fn list_pools(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    Query(page): Query<Page>,
) -> Answer<Json<PoolList>> {
    Ok(Json(services.deployed(&environment).await?.list_pools(&page).await?))
}

/// Create or replace pools: all or none
#[utoipa::path(
    post, path = routes::POOLS.template, tag = "pools", request_body = PutPools,
    params(("environment" = EnvironmentName, Path)),
    responses((status = 200, body = Written))
)]
pub(super) async fn put_pools(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    extract::Json(request): extract::Json<PutPools>,
) -> Answer<Json<Written>> {
    Ok(Json(services.deployed(&environment).await?.put_pools(&request).await?))
}

/// Get a pool
#[utoipa::path(
    get, path = routes::POOL.template, tag = "pools",
    params(("environment" = EnvironmentName, Path), ("name" = String, Path)),
    responses((status = 200, body = Pool))
)]
pub(super) async fn get_pool(
    State(services): State<Services>,
    Path((environment, name)): Path<(EnvironmentName, String)>,
) -> Answer<Json<Pool>> {
    Ok(Json(services.deployed(&environment).await?.pool(&name).await?))
}

/// Delete a pool; with `If-Match`, only if it is unchanged
#[utoipa::path(
    delete, path = routes::POOL.template, tag = "pools",
    params(("environment" = EnvironmentName, Path), ("name" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 204))
)]
pub(super) async fn delete_pool(
    State(services): State<Services>,
    Path((environment, name)): Path<(EnvironmentName, String)>,
    if_match: IfMatch,
) -> Answer<StatusCode> {
    let environment = services.deployed(&environment).await?;
    if_match.check_read(&name, environment.pool(&name)).await?;
    environment.delete_pool(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}
