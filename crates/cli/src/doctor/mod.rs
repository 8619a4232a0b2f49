//! What this host can do. Each check gathers its facts first and judges them in a function without
//! I/O, so that hosts other than the one at hand can be tested.

mod cgroup;
mod check;
mod kernel;
mod kvm;
mod memory;
mod privilege;
mod swap;
mod userfaultfd;

pub(crate) use check::{Check, Verdict};

/// All checks, what VMs need most first.
pub(crate) fn checks() -> Vec<Check> {
    vec![
        kvm::check(),
        kvm::nested_paging(),
        userfaultfd::check(),
        kernel::version(),
        kernel::pagemap_scan(),
        kernel::io_uring(),
        memory::limit(),
        memory::huge_pages(),
        memory::map_count(),
        swap::check(),
        privilege::user(),
        privilege::seccomp(),
        privilege::landlock(),
        cgroup::check(),
        privilege::tun(),
    ]
}

/// The text of a file of the kernel, trimmed; `None` where it cannot be read.
fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
