use anyhow::Result;
use plimsoll_protocol::VmName;
use plimsoll_protocol::status::VmStatus;

use crate::context::Context;

/// The VMs that a command is for, as its command line names them.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Selection {
    /// Names of VMs
    #[arg(value_name = "VM")]
    names: Vec<VmName>,
    /// All VMs that are in a state for it
    #[arg(long, conflicts_with = "names")]
    all: bool,
}

impl Selection {
    /// Whether it may name several VMs: then their facts are printed one a line.
    pub(crate) fn is_plural(&self) -> bool {
        self.all || self.names.len() > 1
    }

    /// The VMs, each once: those that are named, or those that `applies` holds for.
    ///
    /// # Errors
    /// The daemon does not answer. Whether VMs that are named exist is not looked at.
    pub(crate) fn vms(&self, context: &Context, applies: impl Fn(&VmStatus) -> bool) -> Result<Vec<VmName>> {
        if !self.all {
            return Ok(each_once(&self.names));
        }
        let vms = context.client.vms()?;
        let chosen: Vec<VmName> = vms.into_iter().filter(applies).map(|vm| vm.name).collect();
        if chosen.is_empty() {
            context.output.remark("no VM is in a state for it: nothing is done");
        }
        Ok(chosen)
    }
}

/// The VMs that a list is limited to; without any, it shows all.
#[derive(Debug, clap::Args)]
pub(crate) struct Filter {
    /// Only these VMs
    #[arg(value_name = "VM")]
    names: Vec<VmName>,
}

impl Filter {
    /// Those of `all` that are asked for, in their order.
    ///
    /// # Errors
    /// A name that no VM has.
    pub(crate) fn choose(&self, all: Vec<VmStatus>) -> Result<Vec<VmStatus>> {
        if let Some(unknown) = self.names.iter().find(|name| all.iter().all(|vm| vm.name != **name)) {
            return Err(crate::exit::failed(
                crate::exit::Status::Unknown,
                format!("there is no VM {unknown}: see plimsoll ps"),
            ));
        }
        let asked = |vm: &VmStatus| self.names.is_empty() || self.names.contains(&vm.name);
        Ok(all.into_iter().filter(asked).collect())
    }
}

fn each_once(names: &[VmName]) -> Vec<VmName> {
    let mut once: Vec<VmName> = Vec::new();
    for name in names {
        if !once.contains(name) {
            once.push(name.clone());
        }
    }
    once
}
