use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use plimsoll_protocol::status::{Power, VmStatus};
use plimsoll_protocol::{StartDelay, VmName};

use super::poll;
use crate::batch::Batch;
use crate::client::Act;
use crate::context::Context;
use crate::selection::Selection;

/// Longest wait for a VM to run: loading a kernel takes moments; a grant on a host short of memory
/// takes as long as balloons do.
const START_TIME: Duration = Duration::from_secs(60);

const HELP: &str = "\
Examples:
  plimsoll start web1
  plimsoll start web1 db --wait
  plimsoll start --all            all that are off
  plimsoll start --autostart      what the host does when it has booted";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Start {
    #[command(flatten)]
    which: Selection,
    /// All that are marked with "autostart" and are off, in their start order, each with its delay
    #[arg(long, group = "Selection", conflicts_with_all = ["names", "all", "labels", "wait"])]
    autostart: bool,
    /// Return when the guests run
    #[arg(long)]
    wait: bool,
}

impl Start {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        if self.autostart {
            return autostart(context);
        }
        let vms = self.which.vms(context, |vm| vm.power == Power::Off)?;
        let mut batch = Batch::new(context, self.which.is_plural());
        for name in &vms {
            let outcome = start(name, self.wait, context);
            let vm = outcome.as_ref().ok().cloned();
            batch.tell(outcome, started)?;
            vm.iter().for_each(|vm| remark_without_swap(context, vm));
        }
        batch.end()
    }
}

/// Starts the VMs that start with the host, one after the other.
fn autostart(context: &Context) -> Result<()> {
    let mut vms = context.client.vms()?;
    vms.retain(|vm| vm.autostart && vm.power == Power::Off);
    vms.sort_by_key(|vm| vm.start_order);
    let mut batch = Batch::new(context, true);
    let mut delay = StartDelay::default();
    for VmStatus { name, start_delay, .. } in &vms {
        if delay.0 > 0 {
            context.output.progress(&format!("{name} waits for {delay}"));
            std::thread::sleep(Duration::from_secs(delay.0.into()));
            context.output.end_progress();
        }
        let outcome = start(name, true, context);
        // The next one has nothing to wait for.
        delay = if outcome.is_ok() { *start_delay } else { StartDelay::default() };
        batch.tell(outcome, started)?;
    }
    batch.end()
}

/// Starts a VM that is off.
pub(super) fn start(name: &VmName, wait: bool, context: &Context) -> Result<VmStatus> {
    let vm = context.client.act(name, Act::Start)?;
    if wait { running(vm, context) } else { Ok(vm) }
}

/// Waits until a VM that has been started runs.
pub(super) fn running(vm: VmStatus, context: &Context) -> Result<VmStatus> {
    let deadline = Some(Instant::now() + START_TIME);
    let name = vm.name.clone();
    let vm = match vm.power {
        Power::Starting => {
            let begun = poll::until(context, &name, "starting", deadline, |vm| vm.power != Power::Starting)?;
            begun.ok_or_else(|| {
                anyhow!(
                    "{name} has not started within {} s: see plimsoll show {name} and plimsoll logs {name} --vmm",
                    START_TIME.as_secs()
                )
            })?
        }
        _ => vm,
    };
    if vm.power == Power::Off {
        let why = vm.exit.map_or_else(|| "unknown reason".to_owned(), |exit| exit.to_string());
        bail!("{name} stopped right after it started: {why}; see plimsoll logs {name} --vmm");
    }
    Ok(vm)
}

/// Tells a person what a VM cannot be promised on a host without swap space.
pub(super) fn remark_without_swap(context: &Context, vm: &VmStatus) {
    // A daemon that has just gone has no more to tell.
    let why = context.client.host().ok().and_then(|host| host.no_swap);
    if let Some(remark) = why.and_then(|why| without_swap(vm, &why)) {
        context.output.remark(&remark);
    }
}

fn without_swap(vm: &VmStatus, why: &str) -> Option<String> {
    let VmStatus { name, reservation, limit, .. } = vm;
    (reservation < limit).then(|| {
        format!(
            "note: this host has no swap space ({why}): beyond its reservation ({reservation}) {name} may stall until other \
             VMs give memory back"
        )
    })
}

/// What was started, and how to see it.
pub(super) fn started(vm: &VmStatus) -> String {
    let VmStatus { name, size, vcpus, power, .. } = vm;
    let cpus = if *vcpus == 1 { "vCPU" } else { "vCPUs" };
    let verb = if *power == Power::On { "runs" } else { "starts" };
    let kind = if vm.model { ", a model" } else { "" };
    let jail = match vm.missing_jail.as_slice() {
        [] => String::new(),
        parts => {
            let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
            format!("; its jail lacks {}", parts.join(", "))
        }
    };
    let note = vm.note.as_ref().map_or_else(String::new, |note| format!("; {note}"));
    format!("{name} {verb} ({size}, {vcpus} {cpus}{kind}){jail}{note}; see it with: plimsoll console {name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_words::samples;

    #[test]
    fn what_a_host_without_swap_space_cannot_promise_is_told() {
        let mut vm = samples::vm("web1");
        let note = without_swap(&vm, "it is switched off").unwrap();
        assert!(note.contains("beyond its reservation (64MiB) web1 may stall"), "{note}");
        assert!(note.contains("(it is switched off)"), "{note}");
        vm.reservation = vm.limit;
        assert_eq!(without_swap(&vm, "it is switched off"), None, "all is promised");
    }

    #[test]
    fn one_line_says_what_was_started_and_how_to_see_it() {
        let mut vm = samples::vm("web1");
        assert_eq!(started(&vm), "web1 runs (256MiB, 2 vCPUs); see it with: plimsoll console web1");
        vm.power = Power::Starting;
        vm.vcpus = 1;
        vm.model = true;
        vm.missing_jail = vec![plimsoll_protocol::definition::JailPart::Cgroup];
        vm.note = Some("not on disk".to_owned());
        assert_eq!(
            started(&vm),
            "web1 starts (256MiB, 1 vCPU, a model); its jail lacks cgroup; not on disk; see it with: plimsoll console web1"
        );
    }
}
