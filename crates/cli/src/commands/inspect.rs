//! `plimsoll inspect`: prints a VM's definition.

use anyhow::Result;
use plimsoll_protocol::VmName;

use crate::context::Context;

pub(crate) const HELP: &str = "\
Prints what plimsoll run was given, with absolute paths and with what plimsoll set has changed since. What was left to its default is left out. plimsoll show prints what the VM does and has.

Examples:
  plimsoll inspect web1
  plimsoll inspect web1 > web1.toml     keep it, for: plimsoll create web1.toml
  plimsoll inspect web1 --json | jq .size";

pub(crate) fn run(name: &VmName, context: &Context) -> Result<()> {
    let definition = context.client.definition(name)?;
    let text = definition.to_toml()?;
    context.output.facts(&definition, |_| text)
}
