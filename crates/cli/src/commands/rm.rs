use anyhow::Result;
use plimsoll_protocol::VmName;
use serde::Serialize;

use crate::context::Context;

#[derive(Serialize)]
struct Removed<'a> {
    removed: &'a VmName,
}

pub(crate) fn run(name: &VmName, context: &Context) -> Result<()> {
    context.client.remove(name)?;
    context.output.facts(&Removed { removed: name }, |r| format!("{} is removed; its disks stay", r.removed))
}
