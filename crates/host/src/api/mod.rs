//! The HTTP/JSON API; its table of paths is that of [`plimsoll_protocol::api`].

mod answer;
mod body;
mod events;
mod explain;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
mod gate;
mod history;
mod live;
mod log;
mod metrics;
mod pace;
mod path;
mod pools;
mod query;
mod server;
mod stalls;
mod stream;
mod token;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::middleware::from_fn;
use axum::routing::{get, post};
use plimsoll_protocol::VmName;
use plimsoll_protocol::change::{Rename, VmChange};
use plimsoll_protocol::definition::VmDefinition;
use serde::Deserialize;
use tokio::sync::watch;

use self::answer::{ApiError, ApiResult, parse};
pub(crate) use self::gate::Gate;
use self::live::Live;
pub(crate) use self::metrics::meanings;
#[cfg(test)]
pub(crate) use self::metrics::openmetrics;
use self::path::Path;
use self::query::Query;
pub(crate) use self::server::{serve_tcp, serve_unix};
use self::stream::Streams;
pub(crate) use self::token::with_tokens;
use crate::core::Request;
use crate::daemon::Caller;
use crate::paths::Paths;

/// State that all handlers share.
#[derive(Clone, Debug)]
struct Api {
    caller: Caller,
    paths: Paths,
    live: Live,
    streams: Streams,
}

/// All paths of the API.
///
/// `news` has the id of the last event that there was.
pub(crate) fn router(caller: Caller, paths: Paths, news: watch::Receiver<u64>) -> Router {
    let api = Router::new()
        .route("/v1/host", get(host))
        .route("/v1/events", get(events::events))
        .route("/v1/live", get(live::live))
        .route("/v1/sharing", get(sharing))
        .route("/v1/vms", get(list).post(create))
        .route("/v1/vms/{name}", get(show).patch(change).delete(forget))
        .route("/v1/vms/{name}/definition", get(definition).put(redefine))
        .route("/v1/vms/{name}/rename", post(rename))
        .route("/v1/vms/{name}/start", post(start))
        .route("/v1/vms/{name}/stop", post(stop))
        .route("/v1/vms/{name}/pause", post(pause))
        .route("/v1/vms/{name}/resume", post(resume))
        .route("/v1/vms/{name}/reset", post(reset))
        .route("/v1/vms/{name}/kill", post(kill))
        .route("/v1/vms/{name}/log", get(log::log))
        .route("/v1/vms/{name}/explain", get(explain::vm))
        .route("/v1/history", get(history::history))
        .route("/v1/explain", get(explain::host))
        .route("/v1/pools", get(pools::list).post(pools::create))
        .route("/v1/pools/{name}", get(pools::show).patch(pools::change).delete(pools::remove))
        .route("/metrics", get(metrics::metrics))
        .fallback(async || ApiError::no_path())
        .method_not_allowed_fallback(async || ApiError::no_method())
        .with_state(Api { caller, paths, live: Live::new(), streams: Streams::new(news) });
    within_bounds(api)
}

/// The same API, with bodies read and changes made within bounds.
fn within_bounds(api: Router) -> Router {
    api.layer(from_fn(body::read_within_bounds)).layer(from_fn(pace::keep))
}

impl Api {
    async fn call(&self, request: Request) -> ApiResult {
        self.caller.call(request).await.map(answer::success).map_err(ApiError::from)
    }
}

async fn host(State(api): State<Api>) -> ApiResult {
    api.call(Request::Host).await
}

async fn sharing(State(api): State<Api>) -> ApiResult {
    api.call(Request::Sharing).await
}

async fn list(State(api): State<Api>) -> ApiResult {
    api.call(Request::List).await
}

/// What becomes of a VM that is defined.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateQuery {
    /// Whether it is started.
    #[serde(default = "yes")]
    start: bool,
}

fn yes() -> bool {
    true
}

async fn create(State(api): State<Api>, Query(query): Query<CreateQuery>, body: Bytes) -> ApiResult {
    let definition: Box<VmDefinition> = parse("the definition", &body)?;
    api.call(if query.start { Request::Create(definition) } else { Request::Define(definition) }).await
}

async fn redefine(State(api): State<Api>, Path(name): Path, body: Bytes) -> ApiResult {
    let definition = parse("the definition", &body)?;
    api.call(Request::Redefine(vm_name(name)?, definition)).await
}

async fn rename(State(api): State<Api>, Path(name): Path, body: Bytes) -> ApiResult {
    let Rename { name: new } = parse("the new name", &body)?;
    api.call(Request::Rename(vm_name(name)?, new)).await
}

async fn show(State(api): State<Api>, Path(name): Path) -> ApiResult {
    api.call(Request::Get(vm_name(name)?)).await
}

async fn definition(State(api): State<Api>, Path(name): Path) -> ApiResult {
    api.call(Request::Definition(vm_name(name)?)).await
}

async fn change(State(api): State<Api>, Path(name): Path, body: Bytes) -> ApiResult {
    let change: VmChange = parse("the change", &body)?;
    api.call(Request::Change(vm_name(name)?, change)).await
}

async fn forget(State(api): State<Api>, Path(name): Path) -> ApiResult {
    api.call(Request::Forget(vm_name(name)?)).await
}

async fn start(State(api): State<Api>, Path(name): Path) -> ApiResult {
    api.call(Request::Start(vm_name(name)?)).await
}

async fn stop(State(api): State<Api>, Path(name): Path) -> ApiResult {
    api.call(Request::Stop(vm_name(name)?)).await
}

async fn pause(State(api): State<Api>, Path(name): Path) -> ApiResult {
    api.call(Request::Pause(vm_name(name)?, true)).await
}

async fn resume(State(api): State<Api>, Path(name): Path) -> ApiResult {
    api.call(Request::Pause(vm_name(name)?, false)).await
}

async fn reset(State(api): State<Api>, Path(name): Path) -> ApiResult {
    api.call(Request::Reset(vm_name(name)?)).await
}

async fn kill(State(api): State<Api>, Path(name): Path) -> ApiResult {
    api.call(Request::Kill(vm_name(name)?)).await
}

fn vm_name(text: String) -> Result<VmName, ApiError> {
    VmName::try_from(text).map_err(|e| ApiError::invalid(e.to_string()))
}
