//! One VM's process: `plimsoll-vmm`.
//!
//! The daemon starts it with a control socket, passes it what needs privilege to open, and tells it
//! what VM to become. It makes the VM's memory (through `plimsoll-pmap`) and devices, closes its
//! jail, and runs the guest until that ends.
//!
//! It never decides how much memory its VM may have: it asks for grants, waits for them, returns
//! what it does not need, and steers the balloon where it is told. It opens no file, no socket and
//! no device of its own. It trusts the daemon and nothing that the guest says.
//!
//! Start reading at `control`, the thread that leads this life, then `machine`, which puts a VM
//! together. [`virtio`] are its devices, `pci` the bus that they may be on, `boot` is what the
//! kernel finds, `vcpu` runs it, `jail` is what a broken-out guest would find. `model` is a guest
//! for hosts that cannot run guest kernels.
//!
//! | thread | waits for | touches guest memory |
//! |---|---|---|
//! | main (control) | daemon, other threads, the clock | only what cannot make it wait: a shared page that it has just unprotected |
//! | `machine` | power events, reboots | loads the kernel, and may wait for a grant |
//! | `faults` | page faults | only what cannot make it wait, as main |
//! | `sampler` | the clock | never: it moves it |
//! | `console` | guest output, clients | never |
//! | `pager` | orders to page out, the swap's disk | reads it, and only what is there |
//! | `swap` | the swap's disk, where there is no io_uring | never |
//! | `scanner` | orders to share pages, its turn | reads it, and only what is there |
//! | `vcpuN`, `model-*` | the guest | as the guest does |
//! | one per device | the guest's driver, the backend | yes, and may wait for a grant |
//! | `diskN-ioM` | requests to a disk that is an image, its file | yes, pinned pages |
//! | `diskN-pin` | guest pages that the disk is to read or write | yes, and may wait for a grant |

mod accept;
mod boot;
mod brake;
mod bus;
mod console;
mod control;
mod fds;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod guest;
mod guest_event;
mod inherited_fd;
mod jail;
mod machine;
mod mailbox;
mod model;
#[cfg(test)]
mod own_process;
mod pager;
mod pci;
mod sharing;
mod termination;
mod vcpu;
pub mod virtio;
mod whole_pages;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use plimsoll_protocol::control::{CONTROL_FD, ExitReason};

/// Leads a VMM's life, from the first connection at the socket that it was started with to the VM's
/// end.
///
/// The exit code is 0 where the guest shut down, 1 where the VMM failed, 2 where the guest crashed.
///
/// # Errors
/// There is no such socket, or the process has no descriptors left.
pub fn run() -> Result<ExitCode> {
    let listener = inherited_fd::control_socket().with_context(|| {
        format!(
            "there is no socket at file descriptor {CONTROL_FD}: plimsoll-vmm is started by plimsolld, which passes one"
        )
    })?;
    let mailbox = Arc::new(mailbox::Mailbox::new().context("cannot make an event descriptor")?);
    end_on_panic(Arc::clone(&mailbox));
    termination::watch(Arc::clone(&mailbox)).context("cannot handle signals")?;
    let session = control::Session::new(listener, mailbox).context("the control socket")?;
    session.run().context("the control thread cannot wait")
}

/// A panic in any thread is a bug, after which nothing of the VM is to be trusted: the VM ends and
/// says so.
fn end_on_panic(mailbox: Arc<mailbox::Mailbox>) {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        mailbox.exit(ExitReason::Failed(format!("internal error: {info}")));
    }));
}
