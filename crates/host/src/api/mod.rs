//! The HTTP/JSON API. [`routes`] lists its paths, with what the API says of each of them.

mod answer;
mod body;
mod client;
mod events;
mod explain;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
mod gate;
mod given;
mod history;
mod host;
mod if_match;
mod json;
mod live;
mod log;
mod long;
mod metrics;
mod openapi;
mod pace;
mod path;
mod pools;
mod query;
mod routes;
mod server;
mod stalls;
mod stream;
mod token;
mod vms;

use axum::Router;
use axum::middleware::from_fn;
use tokio::sync::watch;

use self::answer::{ApiError, ApiResult};
pub(crate) use self::gate::Gate;
use self::live::Live;
pub(crate) use self::metrics::meanings;
#[cfg(test)]
pub(crate) use self::metrics::openmetrics;
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
    let api = routes::routes()
        .into_router()
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
