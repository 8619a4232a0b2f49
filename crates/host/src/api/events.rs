use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;

use super::Api;
use super::answer::{ApiError, ApiResult};
use crate::core::Request;

/// Which events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Those that came after the event of this id.
    #[serde(default)]
    after: u64,
}

pub(super) async fn events(
    State(api): State<Api>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> ApiResult {
    let Query(query) = query.map_err(|e| ApiError::invalid(e.body_text()))?;
    api.call(Request::Events(query.after)).await
}
