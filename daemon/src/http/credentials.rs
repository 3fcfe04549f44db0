//! Credentials for Modal's cloud.

use airflow_serverless_api::{
    credentials::{CredentialsStatus, PutCredentials, StoreCredentials},
    routes,
};
use axum::{Json, extract::State, http::StatusCode};

use super::{
    Services,
    extract::{self, Query},
    problem::{Answer, Failure},
};
use crate::{
    error::Error,
    modal::{self, CredentialsError, ModalError},
};

fn refused(error: CredentialsError) -> Failure {
    Error::from(ModalError::from(error)).into()
}

/// Show the status of the credentials, without the secret
#[utoipa::path(
    get, path = routes::CREDENTIALS.template, tag = "credentials",
    responses((status = 200, body = CredentialsStatus))
)]
pub(super) async fn get_credentials(State(services): State<Services>) -> Answer<Json<CredentialsStatus>> {
    Ok(Json(services.credentials.status().map_err(refused)?))
}

/// Store credentials after checking them with the server
#[utoipa::path(
    put, path = routes::CREDENTIALS.template, tag = "credentials", request_body = PutCredentials, params(StoreCredentials),
    responses(
        (status = 200, body = CredentialsStatus),
    )
)]
pub(super) async fn put_credentials(
    State(services): State<Services>,
    Query(query): Query<StoreCredentials>,
    extract::Json(request): extract::Json<PutCredentials>,
) -> Answer<Json<CredentialsStatus>> {
    let now = services.base.now();
    Ok(Json(modal::sign_in(&services.credentials, request, query, now).await.map_err(Error::from)?))
}

/// Remove the credentials; environments in the cloud keep running, but the daemon cannot reach them
#[utoipa::path(
    delete, path = routes::CREDENTIALS.template, tag = "credentials",
    responses((status = 204))
)]
pub(super) async fn delete_credentials(State(services): State<Services>) -> Answer<StatusCode> {
    services.credentials.remove().map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}
