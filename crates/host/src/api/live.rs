//! The live state: host and VMs, again and again, as server-sent events.
//!
//! The state is asked for and written once for all watchers, and not at all without watchers. A
//! client that reads slowly misses states; nothing is kept for it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use jiff::Timestamp;
use plimsoll_protocol::status::{HostStatus, VmStatus};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;

use super::Api;
use super::answer::ApiResult;
use crate::core::{Answer, Overview, Request};
use crate::daemon::Caller;

/// Time between two states: VMMs report each second, and memory is divided as often.
const EVERY: Duration = Duration::from_secs(2);

/// The clients that watch, and the latest state for them.
#[derive(Clone, Debug)]
pub(super) struct Live(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// An event of the stream; empty before the first.
    latest: watch::Sender<Bytes>,
    /// The task that asks for states runs.
    asks: AtomicBool,
}

/// The state of one moment.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "LiveState")]
pub(super) struct Now {
    /// The moment.
    at: Timestamp,
    /// The host's account.
    host: HostStatus,
    /// All VMs.
    vms: Vec<VmStatus>,
}

impl Live {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared { latest: watch::Sender::default(), asks: AtomicBool::new(false) }))
    }

    fn watch(&self, caller: &Caller) -> watch::Receiver<Bytes> {
        let receiver = self.0.latest.subscribe();
        if !self.0.asks.swap(true, Ordering::AcqRel) {
            tokio::spawn(Arc::clone(&self.0).ask(caller.clone()));
        }
        receiver
    }
}

impl Shared {
    /// Asks for states while somebody watches.
    async fn ask(self: Arc<Self>, caller: Caller) {
        loop {
            if let Some(event) = event(&caller).await {
                self.latest.send_replace(event);
            }
            tokio::time::sleep(EVERY).await;
            if self.latest.receiver_count() == 0 {
                // An old state would be the first that the next one sees.
                self.latest.send_replace(Bytes::new());
                self.asks.store(false, Ordering::Release);
                // A client that came in between found the task running.
                if self.latest.receiver_count() == 0 || self.asks.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        }
    }
}

/// The state as an event of the stream; `None`: the daemon ends.
async fn event(caller: &Caller) -> Option<Bytes> {
    let Ok(Answer::Overview(overview)) = caller.call(Request::Overview).await else { return None };
    let Overview { host, vms, .. } = *overview;
    let now = Now { at: Timestamp::now(), host, vms };
    Some(format!("event: state\ndata: {}\n\n", serde_json::to_string(&now).ok()?).into())
}

pub(super) async fn live(State(api): State<Api>) -> ApiResult {
    let states = WatchStream::new(api.live.watch(&api.caller)).filter(|event| !event.is_empty());
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(states.map(Ok::<Bytes, Infallible>))).into_response())
}
