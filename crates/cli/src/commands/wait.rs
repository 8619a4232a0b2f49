use std::fmt;
use std::time::Instant;

use anyhow::{Result, anyhow};
use plimsoll_protocol::VmName;
use plimsoll_protocol::status::{Power, VmStatus};
use serde::Serialize;

use super::{kill, poll};
use crate::batch::Batch;
use crate::context::Context;
use crate::exit::{Status, status_of};
use crate::interval::Interval;
use crate::selection::Selection;

const HELP: &str = "\
Examples:
  plimsoll wait web1                       until it is off; the line says how it ended
  plimsoll wait web1 db --for on --timeout 2m
  plimsoll wait web1 --for gone            until it is removed";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Wait {
    #[command(flatten)]
    which: Selection,
    /// What to wait for
    #[arg(long = "for", value_name = "STATE", default_value = "off")]
    goal: Goal,
    /// How long to wait for all of them; without, for ever
    #[arg(long, value_name = "TIME")]
    timeout: Option<Interval>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Goal {
    /// It is off
    Off,
    /// Its guest runs
    On,
    /// It is removed
    Gone,
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Gone => "removed",
        })
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Reached {
    Vm(Box<VmStatus>),
    Gone { gone: VmName },
}

impl Wait {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout.0);
        let vms = self.which.vms(context, |vm| match self.goal {
            Goal::Off => vm.power != Power::Off,
            Goal::On => vm.power != Power::On,
            Goal::Gone => true,
        })?;
        let mut batch = Batch::new(context, self.which.is_plural());
        for name in &vms {
            batch.tell(self.reach(context, name, deadline), |reached| match reached {
                Reached::Vm(vm) if vm.power == Power::Off => kill::ended(vm),
                Reached::Vm(vm) => format!("{} is {}", vm.name, vm.power),
                Reached::Gone { gone } => format!("{gone} is removed"),
            })?;
        }
        batch.end()
    }

    fn reach(&self, context: &Context, name: &VmName, deadline: Option<Instant>) -> Result<Reached> {
        let goal = self.goal;
        let reached = poll::until(context, name, "waiting for", deadline, |vm| match goal {
            Goal::Off => vm.power == Power::Off,
            Goal::On => vm.power == Power::On,
            Goal::Gone => false,
        });
        match reached {
            Ok(Some(vm)) => Ok(Reached::Vm(Box::new(vm))),
            Ok(None) => Err(anyhow!("{name} is not {goal} in time: see plimsoll show {name}")),
            Err(e) if goal == Goal::Gone && status_of(&e) == Status::Unknown => {
                Ok(Reached::Gone { gone: name.clone() })
            }
            Err(e) => Err(e),
        }
    }
}
