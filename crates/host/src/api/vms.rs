use axum::extract::State;
use plimsoll_protocol::VmName;
use plimsoll_protocol::change::{DiskResize, Rename, VmChange};
use plimsoll_protocol::definition::VmDefinition;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Api;
use super::answer::{ApiResult, success};
use super::given::Given;
use super::if_match::IfMatch;
use super::path::Path;
use super::query::Query;
use super::token::Right;
use crate::core::{Answer, Request};

pub(super) async fn list(State(api): State<Api>) -> ApiResult {
    api.call(Request::List).await
}

/// What becomes of a VM that is defined.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateQuery {
    /// Whether it is started.
    #[serde(default = "yes")]
    start: bool,
}

fn yes() -> bool {
    true
}

pub(super) async fn create(
    State(api): State<Api>,
    Query(query): Query<CreateQuery>,
    Given(definition): Given<Box<VmDefinition>>,
) -> ApiResult {
    api.call(if query.start { Request::Create(definition) } else { Request::Define(definition) }).await
}

pub(super) async fn redefine(
    State(api): State<Api>,
    Path(name): Path<VmName>,
    IfMatch(versions): IfMatch,
    Given(definition): Given<Box<VmDefinition>>,
) -> ApiResult {
    api.call(Request::Redefine(name, definition, versions)).await
}

pub(super) async fn rename(
    State(api): State<Api>,
    Path(name): Path<VmName>,
    Given(Rename { name: new }): Given<Rename>,
) -> ApiResult {
    api.call(Request::Rename(name, new)).await
}

pub(super) async fn show(State(api): State<Api>, Path(name): Path<VmName>) -> ApiResult {
    api.call(Request::Get(name)).await
}

pub(super) async fn definition(State(api): State<Api>, right: Right, Path(name): Path<VmName>) -> ApiResult {
    let mut answer = api.caller.call(Request::Definition(name)).await?;
    if let (Right::View, Answer::Definition(definition)) = (right, &mut answer)
        && let Some(seed) = &mut definition.cloud_init
    {
        seed.password_hash = None;
    }
    Ok(success(answer))
}

pub(super) async fn change(
    State(api): State<Api>,
    Path(name): Path<VmName>,
    Given(change): Given<VmChange>,
) -> ApiResult {
    api.call(Request::Change(name, change)).await
}

pub(super) async fn forget(State(api): State<Api>, Path(name): Path<VmName>) -> ApiResult {
    api.call(Request::Forget(name)).await
}

pub(super) async fn start(State(api): State<Api>, Path(name): Path<VmName>) -> ApiResult {
    api.call(Request::Start(name)).await
}

pub(super) async fn stop(State(api): State<Api>, Path(name): Path<VmName>) -> ApiResult {
    api.call(Request::Stop(name)).await
}

pub(super) async fn pause(State(api): State<Api>, Path(name): Path<VmName>) -> ApiResult {
    api.call(Request::Pause(name)).await
}

pub(super) async fn resume(State(api): State<Api>, Path(name): Path<VmName>) -> ApiResult {
    api.call(Request::Resume(name)).await
}

pub(super) async fn reset(State(api): State<Api>, Path(name): Path<VmName>) -> ApiResult {
    api.call(Request::Reset(name)).await
}

pub(super) async fn resize_disk(
    State(api): State<Api>,
    Path(name): Path<VmName>,
    Given(resize): Given<DiskResize>,
) -> ApiResult {
    api.call(Request::ResizeDisk(name, resize)).await
}

pub(super) async fn kill(State(api): State<Api>, Path(name): Path<VmName>) -> ApiResult {
    api.call(Request::Kill(name)).await
}
