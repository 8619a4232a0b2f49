use axum::body::Bytes;
use axum::extract::State;
use plimsoll_protocol::PoolName;
use plimsoll_protocol::change::PoolChange;
use plimsoll_protocol::pool::PoolDefinition;

use super::Api;
use super::answer::{ApiError, ApiResult, parse};
use super::path::Path;
use crate::core::Request;

pub(super) async fn list(State(api): State<Api>) -> ApiResult {
    api.call(Request::Pools).await
}

pub(super) async fn create(State(api): State<Api>, body: Bytes) -> ApiResult {
    let definition: PoolDefinition = parse("the pool", &body)?;
    api.call(Request::CreatePool(definition)).await
}

pub(super) async fn show(State(api): State<Api>, Path(name): Path) -> ApiResult {
    api.call(Request::Pool(pool_name(name)?)).await
}

pub(super) async fn change(State(api): State<Api>, Path(name): Path, body: Bytes) -> ApiResult {
    let change: PoolChange = parse("the change", &body)?;
    api.call(Request::ChangePool(pool_name(name)?, change)).await
}

pub(super) async fn remove(State(api): State<Api>, Path(name): Path) -> ApiResult {
    api.call(Request::RemovePool(pool_name(name)?)).await
}

fn pool_name(text: String) -> Result<PoolName, ApiError> {
    PoolName::try_from(text).map_err(|e| ApiError::invalid(e.to_string()))
}
