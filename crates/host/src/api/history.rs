use std::num::NonZero;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use jiff::Timestamp;
use plimsoll_protocol::VmName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Api;
use super::answer::{ApiError, ApiResult, success};
use super::client::Client;
use super::long::Long;
use super::query::Query;
use crate::core::{Answer, Request};

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

pub(super) async fn history(
    State(api): State<Api>,
    client: Client,
    Query(query): Query<HistoryQuery>,
) -> ApiResult {
    let (vm, after) = (query.vm, query.after);
    let limit = query.limit.map_or(usize::MAX, NonZero::get);
    let answer = api.caller.call(Request::History { vm: vm.clone(), after, limit }).await?;
    let Answer::History(recording) = answer else { return Ok(success(answer)) };
    // A full record makes megabytes of text, which are there until the client has read them.
    let place = client.listener.samples(recording.most(vm.as_ref()))?;
    let written = move || {
        let history = recording.history(vm.as_ref(), Timestamp::now());
        let (kind, text) = match query.format {
            Format::Csv => ("text/csv; charset=utf-8", Ok(history.csv())),
            Format::Json => ("application/json", serde_json::to_string(&history)),
        };
        text.map(|text| (kind, Long::new(text, place)))
    };
    let failed = |e| ApiError::internal(format!("the history cannot be written: {e}"));
    let (kind, text) = client.listener.work(written).await?.map_err(failed)?;
    Ok(([(CONTENT_TYPE, kind)], Body::new(text)).into_response())
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::response::Response;
    use tokio::sync::{mpsc, watch};

    use super::super::client::Listener;
    use super::super::gate::Peer;
    use super::super::live::Live;
    use super::super::stream::Streams;
    use super::*;
    use crate::core::Clock;
    use crate::daemon::Caller;
    use crate::history::{MOST, Reading, Recorder};
    use crate::incoming::Incoming;
    use crate::paths::Paths;

    /// The API of a daemon whose record of one VM is full.
    fn api() -> Api {
        let mut recorder = Recorder::default();
        let clock = Clock { now: std::time::Instant::now(), at: Timestamp::UNIX_EPOCH };
        recorder.push(clock, vec![Reading::example("a", 1); MOST]);
        let (sender, mut inbox) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Some(Incoming::Call(_, answer)) = inbox.recv().await {
                answer.send(Ok(Answer::History(recorder.after(None, usize::MAX)))).ok();
            }
        });
        let (_, news) = watch::channel(0);
        let paths = Paths::below(std::path::Path::new("/nowhere"));
        Api { caller: Caller::to(sender), paths, live: Live::new(), streams: Streams::new(news) }
    }

    #[tokio::test]
    async fn clients_that_do_not_read_whole_records_take_the_memory_of_two() {
        let (api, client) = (api(), Client { peer: Peer::User(1), listener: Listener::new() });
        let ask = async || -> Response {
            let whole = HistoryQuery { vm: None, after: None, limit: None, format: Format::Csv };
            history(State(api.clone()), client.clone(), Query(whole)).await.into_response()
        };
        let mut answers = Vec::new();
        for _ in 0..8 {
            answers.push(ask().await);
        }
        let of_status = |status| answers.iter().filter(|answer| answer.status() == status).count();
        assert_eq!((of_status(StatusCode::OK), of_status(StatusCode::SERVICE_UNAVAILABLE)), (2, 6));
        drop(answers);
        assert_eq!(ask().await.status(), StatusCode::OK);
    }
}
