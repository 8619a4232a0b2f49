use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use plimsoll_protocol::VmName;
use plimsoll_words::explain;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::answer::ApiResult;
use super::client::Client;
use super::path::Path;
use super::query::Query;
use super::{Api, answer};
use crate::core::{Answer, Request};

/// In which form.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    /// The form of the answer.
    #[serde(default)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Format {
    /// All facts.
    #[default]
    Json,
    /// The sentences that `plimsoll explain` prints.
    Text,
}

impl Format {
    fn response<T: Serialize>(self, explanation: &T, text: fn(&T) -> String) -> Response {
        match self {
            Self::Json => Json(explanation).into_response(),
            Self::Text => text(explanation).into_response(),
        }
    }
}

pub(super) async fn host(State(api): State<Api>, Query(asked): Query<ExplainQuery>) -> ApiResult {
    match api.caller.call(Request::Explain).await? {
        Answer::Explanation(explanation) => Ok(asked.format.response(&*explanation, explain::host)),
        other => Ok(answer::success(other)),
    }
}

/// The remedies take some time in a host of thousands of VMs: they are found beside the daemon's
/// own thread.
pub(super) async fn vm(
    State(api): State<Api>,
    client: Client,
    Path(name): Path<VmName>,
    Query(asked): Query<ExplainQuery>,
) -> ApiResult {
    match api.caller.call(Request::ExplainVm(name)).await? {
        Answer::Explained(explained) => {
            let found = client.listener.work(move || explained.finish()).await?;
            Ok(asked.format.response(&found, explain::vm))
        }
        other => Ok(answer::success(other)),
    }
}
