//! Extractors whose rejections are problems.

use airflow_serverless_api::secret::without_credentials;
use axum::{
    body::Bytes,
    extract::{
        FromRequest, FromRequestParts, Request,
        rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection},
    },
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use super::{
    limits::BODY,
    problem::{Failure, kinds},
};

pub(super) struct Json<T>(pub T);
pub(super) struct Path<T>(pub T);
pub(super) struct Query<T>(pub T);
/// The raw body.
pub(super) struct Body(pub Bytes);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let json = in_time(axum::Json::from_request(request, state)).await?;
        json.map(|json| Self(json.0)).map_err(|rejection: JsonRejection| {
            invalid_body(rejection.status(), without_credentials(&rejection.body_text()).into_owned())
        })
    }
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let body = in_time(Bytes::from_request(request, state)).await?;
        body.map(Self).map_err(|rejection: BytesRejection| invalid_body(rejection.status(), rejection.body_text()))
    }
}

/// What comes of reading a body, unless its client takes too long to send it.
async fn in_time<T>(reading: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(BODY, reading)
        .await
        .map_err(|_| Failure::new(&kinds::BODY_TOO_SLOW, format!("the body was not there after {} s", BODY.as_secs())))
}

fn invalid_body(status: StatusCode, detail: String) -> Failure {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Failure::invalid_request(status, "the body is larger than requests of this kind may be".to_owned())
        }
        _ => Failure::invalid_request(status, detail),
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|path| Self(path.0))
            .map_err(|rejection: PathRejection| Failure::invalid_request(rejection.status(), rejection.body_text()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        axum::extract::Query::from_request_parts(parts, state).await.map(|query| Self(query.0)).map_err(
            |rejection: QueryRejection| Failure::invalid_request(StatusCode::BAD_REQUEST, rejection.body_text()),
        )
    }
}
