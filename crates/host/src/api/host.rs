//! The host as a whole: its state, and its sharing domains.

use axum::extract::State;

use super::Api;
use super::answer::ApiResult;
use crate::core::Request;

pub(super) async fn host(State(api): State<Api>) -> ApiResult {
    api.call(Request::Host).await
}

pub(super) async fn sharing(State(api): State<Api>) -> ApiResult {
    api.call(Request::Sharing).await
}
