use std::num::NonZero;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use serde::Deserialize;

use super::Api;
use super::answer::{ApiResult, success};
use super::query::Query;
use crate::core::{Answer, Request};

/// Which events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Those that came after the event of this id.
    after: Option<u64>,
    /// Those that came before the event of this id.
    before: Option<u64>,
    /// Of these at most this many: the first where there is `after`, else the latest.
    limit: Option<NonZero<usize>>,
}

pub(super) async fn events(
    State(api): State<Api>,
    headers: HeaderMap,
    Query(query): Query<EventsQuery>,
) -> ApiResult {
    if follows(&headers) {
        // A client that comes back names the last event that it has seen.
        let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
        return api.streams.open(api.caller, last.or(query.after).unwrap_or(0));
    }
    let answer = api.caller.call(Request::Events(query.after.unwrap_or(0))).await?;
    let Answer::Events(mut events) = answer else { return Ok(success(answer)) };
    events.retain(|event| query.before.is_none_or(|before| event.id < before));
    if let Some(limit) = query.limit {
        let over = events.len().saturating_sub(limit.get());
        if query.after.is_some() {
            events.truncate(limit.get());
        } else {
            events.drain(..over);
        }
    }
    Ok(success(Answer::Events(events)))
}

/// Whether the client wants events as they happen.
fn follows(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(ACCEPT).iter().filter_map(|list| list.to_str().ok());
    lists
        .flat_map(|list| list.split(','))
        .any(|range| range.split(';').next().is_some_and(|media| media.trim() == "text/event-stream"))
}
