//! Watches.

use airflow_serverless_api::{
    routes,
    watch::{CreateWatch, ListWatches, Watch, WatchList, WatchRemoval},
};
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use uuid::Uuid;

use super::{
    Services,
    extract::{self, Path, Query},
    problem::Answer,
};

/// List watches with their pending and invalid files, oldest first
#[utoipa::path(
    get, path = routes::WATCHES.template, tag = "watches", params(ListWatches),
    responses(
        (status = 200, body = WatchList),
    )
)]
pub(super) async fn list_watches(
    State(services): State<Services>,
    Query(query): Query<ListWatches>,
) -> Answer<Json<WatchList>> {
    Ok(Json(services.watchers.list_watches(&query).await?))
}

/// Sync a folder, now and on every save; returns a watch that exists with the same options
#[utoipa::path(
    post, path = routes::WATCHES.template, tag = "watches", request_body = CreateWatch,
    responses(
        (status = 200, description = "It exists with this configuration", body = Watch),
        (status = 201, description = "Accepted; the first sync has started. `Location` names the watch", body = Watch),
    )
)]
pub(super) async fn create_watch(
    State(services): State<Services>,
    extract::Json(request): extract::Json<CreateWatch>,
) -> Answer<Response> {
    let (is_new, watch) = services.watchers.create_watch(request).await?;
    if !is_new {
        return Ok(Json(watch).into_response());
    }
    let location = [(header::LOCATION, routes::WATCH.path([&watch.id.to_string()]))];
    Ok((StatusCode::CREATED, location, Json(watch)).into_response())
}

/// Get a watch
#[utoipa::path(
    get, path = routes::WATCH.template, tag = "watches",
    params(("watch_id" = Uuid, Path)),
    responses(
        (status = 200, body = Watch),
    )
)]
pub(super) async fn get_watch(State(services): State<Services>, Path(id): Path<Uuid>) -> Answer<Json<Watch>> {
    Ok(Json(services.watchers.watch(id).await?))
}

/// Remove a watch; its files stay on the Volume
#[utoipa::path(
    delete, path = routes::WATCH.template, tag = "watches",
    params(("watch_id" = Uuid, Path)),
    responses(
        (status = 200, body = WatchRemoval),
    )
)]
pub(super) async fn delete_watch(State(services): State<Services>, Path(id): Path<Uuid>) -> Answer<Json<WatchRemoval>> {
    Ok(Json(services.watchers.delete_watch(id).await?))
}
