//! Whether this machine can run guests itself.

use std::fs;

/// `Ok` where guests' kernels can run on this machine's own KVM; otherwise why not.
///
/// Some machines (nested ones without nested virtualization) have a `/dev/kvm` that opens but whose
/// processors show neither VMX nor SVM: guests' kernels do not boot on those.
///
/// # Errors
/// Why KVM cannot run guests.
pub fn usable() -> Result<(), String> {
    let cpu = fs::read_to_string("/proc/cpuinfo").map_err(|error| format!("/proc/cpuinfo: {error}"))?;
    let flags = cpu.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    if !flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm") {
        return Err("the processors show neither vmx nor svm".to_owned());
    }
    let opened = fs::File::options().read(true).write(true).open("/dev/kvm");
    opened.map(drop).map_err(|error| format!("/dev/kvm: {error}"))
}
