use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::answer::ApiError;

/// The name in a request's path: axum's, but one that cannot be read is told as every other error
/// of this API.
pub(super) struct Path(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Path {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(name)) => Ok(Self(name)),
            Err(e) => Err(ApiError::invalid(e.body_text())),
        }
    }
}
