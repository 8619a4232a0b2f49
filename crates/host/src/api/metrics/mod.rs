//! `GET /metrics`: the account of the host, its VMs and its pools for Prometheus and what reads
//! its formats.
//!
//! [`host`], [`vm`] and [`pool`] are tables: a metric a line. All of one answer is read in one turn
//! of the daemon's loop, so that what adds up in the ledger adds up here. There is a series for
//! each VM and pool, and none for anything that a guest or a client can name.

mod accept;
mod classic;
mod host;
mod metric;
mod pool;
mod vm;

use std::fmt;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, VARY};
use axum::response::IntoResponse;
use plimsoll_protocol::status::{HostStatus, PoolStatus, VmStatus};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use self::accept::Format;
use super::Api;
use super::answer::{ApiError, ApiResult, success};
use super::client::Client;
use crate::core::{Answer, Overview, Request};

/// All that Plimsoll measures begins with this.
const PREFIX: &str = "plimsoll";

pub(super) async fn metrics(State(api): State<Api>, client: Client, headers: HeaderMap) -> ApiResult {
    let format = Format::of(&headers);
    let answer = api.caller.call(Request::Overview).await?;
    let Answer::Overview(overview) = answer else { return Ok(success(answer)) };
    // A host of a thousand VMs has some 60,000 series: megabytes of text.
    let written = move || {
        openmetrics(*overview).map(|text| match format {
            Format::OpenMetrics => text,
            Format::Classic => classic::classic(&text),
        })
    };
    let failed = |e| ApiError::internal(format!("the metrics cannot be written: {e}"));
    let text = client.listener.work(written).await?.map_err(failed)?;
    Ok(([(CONTENT_TYPE, format.content_type()), (VARY, "accept")], text).into_response())
}

/// `overview` in the text format of OpenMetrics.
///
/// # Errors
/// None that is known: a `String` takes all text.
pub(crate) fn openmetrics(overview: Overview) -> Result<String, fmt::Error> {
    written(overview)
}

/// The meaning and the type of each metric, in the same format, without values.
///
/// # Errors
/// None that is known: a `String` takes all text.
pub(crate) fn meanings() -> Result<String, fmt::Error> {
    written(Meanings)
}

fn written(collector: impl Collector) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(collector));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Overview {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        write(Some(&self.host), &self.vms, &self.pools, &mut encoder)
    }
}

/// A host of which nothing is known.
#[derive(Debug)]
struct Meanings;

impl Collector for Meanings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        write(None, &[], &[], &mut encoder)
    }
}

fn write(
    host: Option<&HostStatus>,
    vms: &[VmStatus],
    pools: &[PoolStatus],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    build(host, encoder)?;
    host::HOST.encode(host.into_iter(), encoder)?;
    vm::info(vms, encoder)?;
    vm::DEFINED.encode(vms.iter(), encoder)?;
    let on = |vm: &&VmStatus| vm::is_on(vm);
    vm::ON.encode(vms.iter().filter(on), encoder)?;
    pool::info(pools, encoder)?;
    pool::POOL.encode(pools.iter(), encoder)
}

fn build(host: Option<&HostStatus>, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut family = encoder.encode_descriptor("build", "The daemon's version", None, MetricType::Info)?;
    host.map_or(Ok(()), |host| family.encode_info(&[("version", host.version.as_str())]))
}
