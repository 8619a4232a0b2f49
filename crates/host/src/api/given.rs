use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use plimsoll_protocol::change::{DiskResize, PoolChange, Rename, VmChange};
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_protocol::pool::PoolDefinition;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::answer::ApiError;
use super::json::{Nulls, parse};
use super::openapi::{Part, Taken};

/// The body of a request: JSON, whatever type it claims to have.
pub(super) struct Given<T>(pub(super) T);

/// What a body may be.
pub(super) trait Body: DeserializeOwned + JsonSchema {
    /// What errors call it.
    const NAME: &'static str;
    /// What `null` says in it.
    const NULLS: Nulls = Nulls::LeftOut;
}

impl Body for Box<VmDefinition> {
    const NAME: &'static str = "the definition";
}

impl Body for Rename {
    const NAME: &'static str = "the new name";
}

impl Body for DiskResize {
    const NAME: &'static str = "the new size";
}

impl Body for VmChange {
    const NAME: &'static str = "the change";
    /// A label that is null is removed.
    const NULLS: Nulls = Nulls::Mean;
}

impl Body for PoolDefinition {
    const NAME: &'static str = "the pool";
}

impl Body for PoolChange {
    const NAME: &'static str = "the change";
}

impl<T: Body, S: Send + Sync> FromRequest<S> for Given<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|e| ApiError::invalid(e.body_text()))?;
        parse(T::NAME, &body, T::NULLS).map(Self)
    }
}

impl<T: Body> Part for Given<T> {
    fn describe(taken: &mut Taken<'_>) {
        taken.body::<T>();
    }
}
