use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use plimsoll_protocol::VmName;
use serde::Deserialize;

use super::Api;
use super::answer::{ApiError, ApiResult, success};
use crate::core::{Answer, Failure, FailureKind, Request};

/// Which VM's history, and in which form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    vm: Option<VmName>,
    #[serde(default)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Csv,
}

pub(super) async fn history(
    State(api): State<Api>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> ApiResult {
    let Query(query) = query.map_err(|e| ApiError::invalid(e.body_text()))?;
    let answer = api.caller.call(Request::History(query.vm)).await?;
    let Answer::History(history) = answer else { return Ok(success(answer)) };
    // A full record makes megabytes of text.
    let text = tokio::task::spawn_blocking(move || match query.format {
        Format::Csv => Ok(("text/csv; charset=utf-8", history.csv())),
        Format::Json => serde_json::to_string(&history).map(|text| ("application/json", text)),
    });
    let failed = |e: &dyn std::fmt::Display| {
        Failure::new(FailureKind::Internal, format!("the history cannot be written: {e}"))
    };
    let (kind, text) = text.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}
