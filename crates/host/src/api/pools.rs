//! Resource pools: listed, made, shown, changed, removed.

use axum::extract::State;
use plimsoll_protocol::PoolName;
use plimsoll_protocol::change::PoolChange;
use plimsoll_protocol::pool::PoolDefinition;

use super::Api;
use super::answer::ApiResult;
use super::given::Given;
use super::path::Path;
use crate::core::Request;

pub(super) async fn list(State(api): State<Api>) -> ApiResult {
    api.call(Request::Pools).await
}

pub(super) async fn create(State(api): State<Api>, Given(definition): Given<PoolDefinition>) -> ApiResult {
    api.call(Request::CreatePool(definition)).await
}

pub(super) async fn show(State(api): State<Api>, Path(name): Path<PoolName>) -> ApiResult {
    api.call(Request::Pool(name)).await
}

pub(super) async fn change(
    State(api): State<Api>,
    Path(name): Path<PoolName>,
    Given(change): Given<PoolChange>,
) -> ApiResult {
    api.call(Request::ChangePool(name, change)).await
}

pub(super) async fn remove(State(api): State<Api>, Path(name): Path<PoolName>) -> ApiResult {
    api.call(Request::RemovePool(name)).await
}
