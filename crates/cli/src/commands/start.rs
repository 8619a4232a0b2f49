use anyhow::Result;
use plimsoll_protocol::VmName;
use plimsoll_protocol::status::{Power, VmStatus};

use crate::client::Act;
use crate::context::Context;

pub(crate) fn run(name: &VmName, context: &Context) -> Result<()> {
    let vm = context.client.act(name, Act::Start)?;
    context.output.facts(&vm, started)?;
    remark_without_swap(context, &vm);
    Ok(())
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
    use crate::commands::samples;

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
