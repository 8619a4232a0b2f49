use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::answer::ApiError;
use super::openapi::{Part, Taken};

/// What follows the `?` of a request's path: axum's, but one that cannot be read is told as every
/// other error of this API.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(e) => Err(ApiError::invalid(e.body_text())),
        }
    }
}

impl<T: JsonSchema> Part for Query<T> {
    fn describe(taken: &mut Taken<'_>) {
        taken.query::<T>();
    }
}
