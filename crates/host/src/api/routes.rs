//! All routes of the API. A route that is not in this list is neither served nor described.

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use plimsoll_protocol::api::Event;
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_protocol::explain::{HostExplanation, VmExplanation};
use plimsoll_protocol::history::History;
use plimsoll_protocol::status::{DiskSize, DomainStatus, HostStatus, PoolStatus, VmStatus};
use serde_json::{Map, Value};

use super::answer::ErrorKind::{Conflict, NoMemory, Outdated, Unfit, Unknown};
use super::openapi::{Operation, Routes, Tag};
use super::{Api, events, explain, history, host, live, log, metrics, pools, vms};
use crate::web;

pub(super) fn routes() -> Routes<Api> {
    let host = |id, summary| Operation::new(Tag::Host, id, summary);
    let vms = |id, summary| Operation::new(Tag::Vms, id, summary);
    let pools = |id, summary| Operation::new(Tag::Pools, id, summary);
    Routes::new()
        .get("/v1/openapi.json", document, host("getOpenApi", "This document").json::<Map<String, Value>>())
        .get(
            "/v1/host",
            host::host,
            host("getHost", "The host's account of its memory").json::<HostStatus>().costs(1),
        )
        .get(
            "/v1/sharing",
            host::sharing,
            host("listSharingDomains", "The sharing domains").json::<Vec<DomainStatus>>().costs(1),
        )
        .get(
            "/v1/live",
            live::live,
            host("followState", "Host and VMs every two seconds")
                .about("Server-sent events of the kind `state`. A client that reads slowly misses some.")
                .events::<live::Now>(),
        )
        .get(
            "/v1/events",
            events::events,
            host("listEvents", "What happened, the latest, oldest first")
                .about(
                    "With `after` or `before` and `limit` in pages. With `Accept: text/event-stream` the events \
                     come as they happen, each with its id.",
                )
                .json::<Vec<Event>>()
                .events::<Event>(),
        )
        .get(
            "/v1/history",
            history::history,
            host("getHistory", "What VMs used and had over time")
                .about("With `limit` in pages: `next` of a page is `after` of the next one.")
                .json::<History>()
                .text("text/csv")
                .costs(10)
                .refuses(&[Unknown]),
        )
        .get(
            "/v1/explain",
            explain::host,
            host("explainHost", "Why memory is divided as it is")
                .json::<HostExplanation>()
                .text("text/plain")
                .costs(10),
        )
        .get(
            "/metrics",
            metrics::metrics,
            host("getMetrics", "The host, its VMs and its pools for Prometheus")
                .about("OpenMetrics for clients that accept it, else Prometheus' own text format.")
                .text("application/openmetrics-text")
                .text("text/plain")
                .costs(3),
        )
        .get("/v1/vms", vms::list, vms("listVms", "All VMs").json::<Vec<VmStatus>>().costs(1))
        .post(
            "/v1/vms",
            vms::create,
            vms("createVm", "Defines a VM, and starts it unless `start` is false")
                .about("A VM that does not start is not defined. With `start`, one that is off is replaced.")
                .json::<VmStatus>()
                .refuses(&[Conflict, Unfit, NoMemory]),
        )
        .get(
            "/v1/vms/{name}",
            vms::show,
            vms("getVm", "What a VM does and has").json::<VmStatus>().refuses(&[Unknown]),
        )
        .patch(
            "/v1/vms/{name}",
            vms::change,
            vms("changeVm", "Changes a VM's parameters")
                .json::<VmStatus>()
                .refuses(&[Unknown, Conflict, NoMemory]),
        )
        .delete(
            "/v1/vms/{name}",
            vms::forget,
            vms("deleteVm", "Removes a VM, which must be off").refuses(&[Unknown, Conflict]),
        )
        .get(
            "/v1/vms/{name}/definition",
            vms::definition,
            vms("getVmDefinition", "A VM's definition, as it was given and changed since")
                .about("A token that permits to look only shows no `password_hash` of `cloud_init`.")
                .json::<VmDefinition>()
                .tagged()
                .refuses(&[Unknown, Conflict]),
        )
        .put(
            "/v1/vms/{name}/definition",
            vms::redefine,
            vms("replaceVmDefinition", "Replaces a VM's definition")
                .about(
                    "While the VM is on, only what `changeVm` can change may differ. With `If-Match` nothing \
                     that was changed meanwhile is lost.",
                )
                .json::<VmStatus>()
                .refuses(&[Unknown, Conflict, Outdated, NoMemory]),
        )
        .post(
            "/v1/vms/{name}/rename",
            vms::rename,
            vms("renameVm", "Gives a VM, which must be off, another name")
                .json::<VmStatus>()
                .refuses(&[Unknown, Conflict]),
        )
        .post(
            "/v1/vms/{name}/start",
            vms::start,
            vms("startVm", "Starts a VM")
                .json::<VmStatus>()
                .refuses(&[Unknown, Conflict, Unfit, NoMemory]),
        )
        .post("/v1/vms/{name}/stop", vms::stop, of_vm("stopVm", "Presses a VM's power button"))
        .post("/v1/vms/{name}/pause", vms::pause, of_vm("pauseVm", "Has a VM's processors stand still"))
        .post("/v1/vms/{name}/resume", vms::resume, of_vm("resumeVm", "Lets a paused VM's processors go on"))
        .post("/v1/vms/{name}/reset", vms::reset, of_vm("resetVm", "Presses a VM's reset button"))
        .post("/v1/vms/{name}/kill", vms::kill, of_vm("killVm", "Ends a VM's process"))
        .post(
            "/v1/vms/{name}/resize-disk",
            vms::resize_disk,
            vms("resizeVmDisk", "Has a disk of a VM grow, while it is on or off")
                .about(
                    "A file grows to `size`; of a block device, or a file that has grown, `size` may be left out. \
                     Images grow while their VM is on. A guest that runs is told.",
                )
                .json::<DiskSize>()
                .refuses(&[Unknown, Conflict, Unfit]),
        )
        .get(
            "/v1/vms/{name}/log",
            log::log,
            vms("getVmLog", "The end of a VM's log").text("text/plain").refuses(&[Unknown]),
        )
        .get(
            "/v1/vms/{name}/explain",
            explain::vm,
            vms("explainVm", "Why a VM has the memory that it has")
                .json::<VmExplanation>()
                .text("text/plain")
                .costs(10)
                .refuses(&[Unknown]),
        )
        .get(
            "/v1/pools",
            pools::list,
            pools("listPools", "All pools, parents before their children")
                .json::<Vec<PoolStatus>>()
                .costs(1),
        )
        .post(
            "/v1/pools",
            pools::create,
            pools("createPool", "Makes a pool").json::<PoolStatus>().refuses(&[Conflict, NoMemory]),
        )
        .get(
            "/v1/pools/{name}",
            pools::show,
            pools("getPool", "One pool").json::<PoolStatus>().costs(1).refuses(&[Unknown]),
        )
        .patch(
            "/v1/pools/{name}",
            pools::change,
            pools("changePool", "Changes a pool").json::<PoolStatus>().refuses(&[Unknown, NoMemory]),
        )
        .delete(
            "/v1/pools/{name}",
            pools::remove,
            pools("deletePool", "Removes a pool, which must hold neither pools nor VMs")
                .refuses(&[Unknown, Conflict]),
        )
}

/// What is done to a VM that is on.
fn of_vm(id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Tag::Vms, id, summary).json::<VmStatus>().refuses(&[Unknown, Conflict])
}

/// The description, which is written when it is first asked for.
static DOCUMENT: LazyLock<Bytes> =
    LazyLock::new(|| routes().document(web::files()).to_string().into_bytes().into());

async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.clone()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_that_look_at_all_vms_have_a_pace() {
        let document: Value = serde_json::from_slice(&DOCUMENT).unwrap();
        for path in
            ["/v1/host", "/v1/sharing", "/v1/vms", "/v1/pools", "/v1/explain", "/v1/history", "/metrics"]
        {
            let answers = &document["paths"][path]["get"]["responses"];
            assert!(answers.get("429").is_some(), "{path}: {answers}");
        }
    }
}
