use std::io;

use super::{Check, read};
use crate::sys::kvm::{self, Answer, DEVICE};

const NAME: &str = "kvm";
const NO_GUESTS: &str = "guest kernels do not run here; model guests (boot.model = true) do";
const LAB: &str = "or use the lab, a virtual host in software: cargo xtask lab";

/// The processor's hardware for virtual machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cpu {
    Vmx,
    Svm,
    /// Neither is shown.
    Neither,
}

/// Whether KVM runs guests.
pub(super) fn check() -> Check {
    judge(kvm::ask(), cpu(&read("/proc/cpuinfo").unwrap_or_default())).needed()
}

fn cpu(cpuinfo: &str) -> Cpu {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |flag| flags.split_ascii_whitespace().any(|f| f == flag);
    match (has("vmx"), has("svm")) {
        (true, _) => Cpu::Vmx,
        (_, true) => Cpu::Svm,
        _ => Cpu::Neither,
    }
}

fn judge(answer: io::Result<Answer>, cpu: Cpu) -> Check {
    let missing =
        |found: String, todo: &str| Check::missing(NAME, found, NO_GUESTS, &format!("{todo}; {LAB}"));
    let nested =
        "switch virtualization on in the firmware, or where this is a VM nested virtualization in its host";
    match (answer, cpu) {
        (Ok(Answer::Works), Cpu::Vmx) => Check::ok(NAME, format!("{DEVICE} makes VMs with Intel VMX")),
        (Ok(Answer::Works), Cpu::Svm) => Check::ok(NAME, format!("{DEVICE} makes VMs with AMD SVM")),
        (Ok(_), Cpu::Neither) => {
            missing(format!("{DEVICE} exists, but the CPU has neither vmx nor svm"), nested)
        }
        (Ok(Answer::Version(version)), _) => missing(
            format!("{DEVICE} speaks version {version} in place of 12"),
            "use a kernel of Linux 6.1 or newer",
        ),
        (Ok(Answer::Lacks(lacking)), _) => missing(
            format!("{DEVICE} lacks {}", lacking.join(", ")),
            "use a distribution's kernel of Linux 6.1 or newer",
        ),
        (Ok(Answer::Refuses(why)), _) => missing(
            format!("{DEVICE} makes no VM: {why}"),
            "see dmesg; another hypervisor may hold the CPU's virtualization",
        ),
        (Err(error), cpu) => match (error.kind(), cpu) {
            (io::ErrorKind::NotFound, Cpu::Neither) => {
                missing(format!("no {DEVICE}, and the CPU has neither vmx nor svm"), nested)
            }
            (io::ErrorKind::NotFound, cpu) => {
                let module = if cpu == Cpu::Vmx { "kvm_intel" } else { "kvm_amd" };
                let todo = format!("load the module (modprobe {module}), or give {DEVICE} to this container");
                missing(format!("no {DEVICE}, though the CPU supports it"), &todo)
            }
            (io::ErrorKind::PermissionDenied, Cpu::Neither) => {
                missing(format!("no right to open {DEVICE}, and the CPU has neither vmx nor svm"), nested)
            }
            (io::ErrorKind::PermissionDenied, _) => missing(
                format!("no right to open {DEVICE}"),
                "run as root, or as a member of its group (usually kvm), or give the device to this container",
            ),
            // ENODEV and ENXIO: the device node is there, the module is not.
            _ => missing(format!("{DEVICE} does not open: {error}"), "load kvm_intel or kvm_amd (modprobe)"),
        },
    }
}

/// Whether the hardware walks a guest's page tables itself.
pub(super) fn nested_paging() -> Check {
    judge_paging(
        read("/sys/module/kvm_intel/parameters/ept").as_deref(),
        read("/sys/module/kvm_amd/parameters/npt").as_deref(),
    )
}

fn judge_paging(ept: Option<&str>, npt: Option<&str>) -> Check {
    let name = "nested-paging";
    let on = |value: &str| matches!(value, "Y" | "1");
    match (ept, npt) {
        (Some(value), _) if on(value) => Check::ok(name, "on (EPT)"),
        (_, Some(value)) if on(value) => Check::ok(name, "on (NPT)"),
        (None, None) => Check::limited(
            name,
            "unknown: neither kvm_intel nor kvm_amd is loaded",
            "without it guests run on shadow page tables, and slower",
            "load kvm_intel or kvm_amd",
        ),
        _ => Check::limited(
            name,
            "off",
            "guests run on shadow page tables, and slower",
            "load the module with kvm_intel.ept=1 or kvm_amd.npt=1",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_hardware_behind_it_is_not_enough() {
        let check = judge(Ok(Answer::Works), Cpu::Neither);
        assert!(check.needed().prevents_vms());
        assert!(!judge(Ok(Answer::Works), Cpu::Svm).needed().prevents_vms());
    }

    #[test]
    fn each_reason_has_its_own_words_and_remedy() {
        let error = |kind: io::ErrorKind| Err(io::Error::from(kind));
        for (answer, cpu, found, todo) in [
            (error(io::ErrorKind::NotFound), Cpu::Neither, "neither vmx nor svm", "firmware"),
            (error(io::ErrorKind::NotFound), Cpu::Vmx, "though the CPU supports it", "modprobe kvm_intel"),
            (error(io::ErrorKind::NotFound), Cpu::Svm, "though the CPU supports it", "modprobe kvm_amd"),
            (error(io::ErrorKind::PermissionDenied), Cpu::Neither, "neither vmx nor svm", "firmware"),
            (error(io::ErrorKind::PermissionDenied), Cpu::Vmx, "no right", "group"),
            (Err(io::Error::from_raw_os_error(libc::ENODEV)), Cpu::Vmx, "does not open", "modprobe"),
            (Ok(Answer::Version(11)), Cpu::Vmx, "version 11", "6.1"),
            (Ok(Answer::Lacks(vec!["IRQFD"])), Cpu::Vmx, "IRQFD", "kernel"),
            (Ok(Answer::Refuses("busy".into())), Cpu::Vmx, "busy", "dmesg"),
        ] {
            let check = judge(answer, cpu).needed();
            assert!(check.prevents_vms() && check.found.contains(found), "{check:?}");
            assert!(check.todo.contains(todo), "{check:?}");
        }
    }

    #[test]
    fn flags_are_words() {
        assert_eq!(cpu("model name: x\nflags\t\t: fpu svm_lock vmx_x\n"), Cpu::Neither);
        assert_eq!(cpu("flags\t\t: fpu vmx sse\n"), Cpu::Vmx);
        assert_eq!(cpu("flags\t\t: fpu svm\n"), Cpu::Svm);
        assert_eq!(cpu(""), Cpu::Neither);
    }

    #[test]
    fn nested_paging_is_read_from_whichever_module_is_loaded() {
        use crate::doctor::Verdict;
        for (ept, npt, verdict) in [
            (Some("Y"), None, Verdict::Ok),
            (None, Some("1"), Verdict::Ok),
            (None, Some("N"), Verdict::Limited),
            (None, None, Verdict::Limited),
        ] {
            assert_eq!(judge_paging(ept, npt).verdict, verdict);
        }
    }
}
