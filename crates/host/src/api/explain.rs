use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;

use super::answer::ApiResult;
use super::path::Path;
use super::{Api, answer, vm_name};
use crate::core::{Answer, Failure, FailureKind, Request};

pub(super) async fn host(State(api): State<Api>) -> ApiResult {
    api.call(Request::Explain).await
}

/// The remedies take some time in a host of thousands of VMs: they are found beside the daemon's
/// own thread.
pub(super) async fn vm(State(api): State<Api>, Path(name): Path) -> ApiResult {
    match api.caller.call(Request::ExplainVm(vm_name(name)?)).await? {
        Answer::Explained(explained) => {
            let found = tokio::task::spawn_blocking(move || explained.finish()).await;
            let failed =
                |e| Failure::new(FailureKind::Internal, format!("the remedies cannot be found: {e}"));
            Ok(Json(found.map_err(failed)?).into_response())
        }
        other => Ok(answer::success(other)),
    }
}
