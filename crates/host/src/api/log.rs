use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use plimsoll_protocol::VmName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Api;
use super::answer::{ApiError, ApiResult};
use super::path::Path;
use super::query::Query;
use crate::core::Request;
use crate::vmm_log::tail;

/// Most of a log that is sent: a boot's console output is some 100 KB.
const MOST: u64 = 1 << 20;

/// Which log.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    /// Which log.
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Source {
    /// The messages of its process.
    Vmm,
    /// What the guest wrote to its console.
    Console,
}

pub(super) async fn log(
    State(api): State<Api>,
    Path(name): Path<VmName>,
    query: Result<Query<LogQuery>, ApiError>,
) -> ApiResult {
    let path = match query.map(|Query(query)| query.source) {
        Ok(Source::Vmm) => api.paths.vmm_log(&name),
        Ok(Source::Console) => api.paths.console_log(&name),
        Err(_) => return Err(ApiError::invalid("say which log: ?source=vmm or ?source=console".to_owned())),
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
    ApiError::internal(format!("the log of VM {name} cannot be read: {e}"))
}
