use std::fmt;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use schemars::JsonSchema;

use super::answer::ApiError;
use super::openapi::{Part, Taken};

/// The name in a request's path, of a VM or a pool. One that cannot be read, or is no name, is told
/// as every other error of this API.
pub(super) struct Path<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for Path<T>
where
    T: TryFrom<String, Error: fmt::Display>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let axum::extract::Path(name) = axum::extract::Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|e| ApiError::invalid(e.body_text()))?;
        T::try_from(name).map(Self).map_err(|e| ApiError::invalid(e.to_string()))
    }
}

impl<T: JsonSchema> Part for Path<T> {
    fn describe(taken: &mut Taken<'_>) {
        taken.path::<T>("name");
    }
}
