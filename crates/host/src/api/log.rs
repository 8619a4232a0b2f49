use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use plimsoll_protocol::VmName;
use serde::Deserialize;

use super::answer::{ApiError, ApiResult};
use super::path::Path;
use super::{Api, vm_name};
use crate::core::{Failure, FailureKind, Request};
use crate::vmm_log::tail;

/// Most of a log that is sent: a boot's console output is some 100 KB.
const MOST: u64 = 1 << 20;

/// Which log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    source: Option<String>,
}

pub(super) async fn log(
    State(api): State<Api>,
    Path(name): Path,
    query: Result<Query<LogQuery>, axum::extract::rejection::QueryRejection>,
) -> ApiResult {
    let name = vm_name(name)?;
    let source = query.ok().and_then(|Query(q)| q.source);
    let path = match source.as_deref() {
        Some("vmm") => api.paths.vmm_log(&name),
        Some("console") => api.paths.console_log(&name),
        _ => return Err(ApiError::invalid("say which log: ?source=vmm or ?source=console".to_owned())),
    };
    api.call(Request::Get(name.clone())).await?;
    let read = tokio::task::spawn_blocking(move || match std::fs::File::open(&path) {
        Ok(file) => tail(&file, MOST),
        // It has not run yet.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    });
    match read.await {
        Ok(Ok(text)) => Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()),
        Ok(Err(e)) => Err(failed(&name, &e)),
        Err(e) => Err(failed(&name, &e)),
    }
}

fn failed(name: &VmName, e: &dyn std::error::Error) -> ApiError {
    Failure::new(FailureKind::Internal, format!("the log of VM {name} cannot be read: {e}")).into()
}
