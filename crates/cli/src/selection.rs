use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::Result;
use plimsoll_protocol::status::VmStatus;
use plimsoll_protocol::{LabelKey, LabelValue, Labels, StartOrder, VmName};

use crate::context::Context;
use crate::exit::{Status, failed};

/// A label that VMs are chosen by: `KEY=VALUE`, or `KEY` with any value.
#[derive(Clone, Debug)]
struct Selector {
    key: LabelKey,
    value: Option<LabelValue>,
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) => Ok(Self { key: key.parse()?, value: Some(value.parse()?) }),
            None => Ok(Self { key: text.parse()?, value: None }),
        }
    }
}

impl Selector {
    fn holds(&self, labels: &Labels) -> bool {
        let found = labels.0.get(&self.key);
        found.is_some_and(|found| self.value.as_ref().is_none_or(|value| value == found))
    }
}

/// The VMs that a command is for, as its command line names them.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Selection {
    /// Names of VMs
    #[arg(value_name = "VM")]
    names: Vec<VmName>,
    /// All VMs that the command applies to
    #[arg(long, conflicts_with_all = ["names", "labels"])]
    all: bool,
    /// Those of them that have this label; with several --label, all of these
    #[arg(long = "label", value_name = "KEY[=VALUE]", conflicts_with = "names")]
    labels: Vec<Selector>,
}

impl Selection {
    /// The VMs that a command is for, in groups that it takes one after the other: of those that
    /// are not named the highest start order first, else all at once.
    ///
    /// # Errors
    /// Those of [`Self::vms`].
    pub(crate) fn groups(
        &self,
        context: &Context,
        applies: impl Fn(&VmStatus) -> bool,
    ) -> Result<Vec<Vec<VmName>>> {
        if !self.names.is_empty() {
            return Ok(vec![each_once(&self.names)]);
        }
        let mut groups: BTreeMap<Reverse<StartOrder>, Vec<VmName>> = BTreeMap::new();
        for vm in self.chosen(context, applies)? {
            groups.entry(Reverse(vm.start_order)).or_default().push(vm.name);
        }
        Ok(groups.into_values().collect())
    }

    /// Whether it names its VMs.
    pub(crate) fn is_named(&self) -> bool {
        !self.names.is_empty()
    }

    /// Whether it may name several VMs: then their facts are printed one a line.
    pub(crate) fn is_plural(&self) -> bool {
        self.names.len() != 1
    }

    /// The VMs, each once: those that are named, or those that `applies` holds for.
    ///
    /// # Errors
    /// The daemon does not answer. Whether VMs that are named exist is not looked at.
    pub(crate) fn vms(&self, context: &Context, applies: impl Fn(&VmStatus) -> bool) -> Result<Vec<VmName>> {
        if !self.names.is_empty() {
            return Ok(each_once(&self.names));
        }
        Ok(self.chosen(context, applies)?.into_iter().map(|vm| vm.name).collect())
    }

    fn chosen(&self, context: &Context, applies: impl Fn(&VmStatus) -> bool) -> Result<Vec<VmStatus>> {
        let vms = context.client.vms()?;
        let labelled = |vm: &VmStatus| self.labels.iter().all(|label| label.holds(&vm.labels));
        let chosen: Vec<VmStatus> = vms.into_iter().filter(labelled).filter(applies).collect();
        if chosen.is_empty() {
            context.output.remark("no VM matches; nothing done");
        }
        Ok(chosen)
    }
}

/// The VMs that a list is limited to; without any, it shows all.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Filter {
    /// Only these VMs
    #[arg(value_name = "VM")]
    names: Vec<VmName>,
    /// Only VMs that have this label; with several --label, all of these
    #[arg(long = "label", value_name = "KEY[=VALUE]")]
    labels: Vec<Selector>,
}

impl Filter {
    /// Those of `all` that are asked for, in their order.
    ///
    /// # Errors
    /// A name that no VM has.
    pub(crate) fn choose(&self, all: Vec<VmStatus>) -> Result<Vec<VmStatus>> {
        if let Some(unknown) = self.names.iter().find(|name| all.iter().all(|vm| vm.name != **name)) {
            return Err(failed(Status::Unknown, format!("there is no VM {unknown}: see plimsoll ps")));
        }
        let named = |vm: &VmStatus| self.names.is_empty() || self.names.contains(&vm.name);
        let labelled = |vm: &VmStatus| self.labels.iter().all(|label| label.holds(&vm.labels));
        Ok(all.into_iter().filter(|vm| named(vm) && labelled(vm)).collect())
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
