//! `plimsoll create`: defines a VM, and starts nothing.

use anyhow::Result;
use plimsoll_protocol::status::VmStatus;

use super::new_vm::{IMAGE_HELP, NewVm};
use crate::client::Client;
use crate::context::Context;

const HELP: &str = "\
The definition is that of plimsoll run, which see. A name that is taken is refused: plimsoll edit and plimsoll set change what is defined.

Examples:
  plimsoll create web1.toml && plimsoll start web1
  plimsoll create --image debian-12.qcow2 --name web1 && plimsoll edit web1
  plimsoll create - --pool prod < web1.toml";

#[derive(Debug, clap::Args)]
#[command(after_help = format!("{IMAGE_HELP}\n\n{HELP}"))]
pub(crate) struct Create {
    #[command(flatten)]
    new: NewVm,
}

impl Create {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        match self.new.define(context, Client::define_only)? {
            Some(vm) => context.output.facts(&vm, sentence),
            None => Ok(()),
        }
    }
}

fn sentence(vm: &VmStatus) -> String {
    format!("{name} is defined; start it with: plimsoll start {name}", name = vm.name)
}
