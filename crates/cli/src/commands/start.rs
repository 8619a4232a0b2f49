use anyhow::Result;
use plimsoll_protocol::VmName;
use plimsoll_protocol::api::{Power, VmStatus};

use super::Context;
use crate::client::Act;

pub(super) fn run(name: &VmName, context: &Context) -> Result<()> {
    let vm = context.client.act(name, Act::Start)?;
    context.output.facts(&vm, started)
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
    format!("{name} {verb} ({size}, {vcpus} {cpus}{kind}){jail}; see it with: plimsoll console {name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::samples;

    #[test]
    fn one_line_says_what_was_started_and_how_to_see_it() {
        let mut vm = samples::vm("web1");
        assert_eq!(started(&vm), "web1 runs (256MiB, 2 vCPUs); see it with: plimsoll console web1");
        vm.power = Power::Starting;
        vm.vcpus = 1;
        vm.model = true;
        vm.missing_jail = vec![plimsoll_protocol::definition::JailPart::Cgroup];
        assert_eq!(
            started(&vm),
            "web1 starts (256MiB, 1 vCPU, a model); its jail lacks cgroup; see it with: plimsoll console web1"
        );
    }
}
