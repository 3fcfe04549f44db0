//! Extractors whose rejections are problems.

use std::{fmt, marker::PhantomData};

use airflow_serverless_api::secret::{without_credentials, without_values};
use axum::{
    body::Bytes,
    extract::{
        FromRequest, FromRequestParts, Request,
        rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection},
    },
    http::{StatusCode, request::Parts},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{
    limits::BODY,
    problem::{Failure, problem_kinds},
};

pub(super) struct Json<T>(pub T);
pub(super) struct Path<T>(pub T);
pub(super) struct Query<T>(pub T);
/// The raw body.
pub(super) struct Body(pub Bytes);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let json = in_time(axum::Json::<Object<T>>::from_request(request, state)).await?;
        json.map(|json| Self(json.0.0)).map_err(|rejection: JsonRejection| {
            let text = rejection.body_text();
            invalid_body(rejection.status(), without_credentials(&without_values(&text)).into_owned())
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

/// Accepts only JSON objects. By default serde also reads an array as the fields of a struct.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// Reads a body within the time limit.
pub(super) async fn in_time<T>(reading: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(BODY, reading).await.map_err(|_| {
        Failure::new(&problem_kinds::BODY_TOO_SLOW, format!("the body did not arrive within {} s", BODY.as_secs()))
    })
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
        refuse_nul(parts.uri.path())?;
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|path| Self(path.0))
            .map_err(|rejection: PathRejection| Failure::invalid_request(rejection.status(), rejection.body_text()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        refuse_nul(parts.uri.query().unwrap_or_default())?;
        axum::extract::Query::from_request_parts(parts, state).await.map(|query| Self(query.0)).map_err(
            |rejection: QueryRejection| Failure::invalid_request(StatusCode::BAD_REQUEST, rejection.body_text()),
        )
    }
}

/// No name contains NUL, and PostgreSQL rejects it in queries.
fn refuse_nul(encoded: &str) -> Result<(), Failure> {
    if encoded.contains("%00") {
        return Err(Failure::invalid_request(StatusCode::BAD_REQUEST, "the URL contains the character NUL".to_owned()));
    }
    Ok(())
}
