use std::convert::Infallible;
use std::num::NonZero;

use axum::extract::{FromRequestParts, State};
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::http::request::Parts;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Api;
use super::answer::{ApiResult, success};
use super::client::Client;
use super::openapi::{Part, Taken};
use super::query::Query;
use crate::core::{Answer, Request};

/// Which events.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Those that came after the event of this id.
    after: Option<u64>,
    /// Those that came before the event of this id.
    before: Option<u64>,
    /// Of these at most this many: the first where there is `after`, else the latest.
    limit: Option<NonZero<usize>>,
}

/// The last event that a client has seen that comes back.
pub(super) struct LastEvent(Option<u64>);

impl<S: Send + Sync> FromRequestParts<S> for LastEvent {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let id = parts.headers.get("last-event-id");
        Ok(Self(id.and_then(|id| id.to_str().ok()?.parse().ok())))
    }
}

impl Part for LastEvent {
    fn describe(taken: &mut Taken<'_>) {
        let about =
            "The last event that a client has seen that follows the events again. It counts before `after`.";
        taken.header::<u64>("Last-Event-ID", about);
    }
}

pub(super) async fn events(
    State(api): State<Api>,
    client: Client,
    headers: HeaderMap,
    LastEvent(last): LastEvent,
    Query(query): Query<EventsQuery>,
) -> ApiResult {
    if follows(&headers) {
        return api.streams.open(&client.listener, api.caller, last.or(query.after).unwrap_or(0));
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
