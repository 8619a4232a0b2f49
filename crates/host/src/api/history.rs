use std::num::NonZero;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use jiff::Timestamp;
use plimsoll_protocol::VmName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Api;
use super::answer::{ApiResult, success};
use super::query::Query;
use crate::core::{Answer, Failure, FailureKind, Request};

/// Which VM's history, which part of it, and in which form.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    /// Of this VM only.
    vm: Option<VmName>,
    /// What came after this moment: `next` of the page before.
    after: Option<Timestamp>,
    /// Of this many moments at most; all VMs of a moment are on one page.
    limit: Option<NonZero<usize>>,
    /// The form of the answer.
    #[serde(default)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Format {
    /// An object with an array of samples.
    #[default]
    Json,
    /// Comma-separated values, a line a sample.
    Csv,
}

pub(super) async fn history(State(api): State<Api>, Query(query): Query<HistoryQuery>) -> ApiResult {
    let (vm, after) = (query.vm, query.after);
    let limit = query.limit.map_or(usize::MAX, NonZero::get);
    let answer = api.caller.call(Request::History { vm: vm.clone(), after, limit }).await?;
    let Answer::History(recording) = answer else { return Ok(success(answer)) };
    // A full record makes megabytes of text.
    let text = tokio::task::spawn_blocking(move || {
        let history = recording.history(vm.as_ref(), Timestamp::now());
        match query.format {
            Format::Csv => Ok(("text/csv; charset=utf-8", history.csv())),
            Format::Json => serde_json::to_string(&history).map(|text| ("application/json", text)),
        }
    });
    let failed = |e: &dyn std::fmt::Display| {
        Failure::new(FailureKind::Internal, format!("the history cannot be written: {e}"))
    };
    let (kind, text) = text.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}
