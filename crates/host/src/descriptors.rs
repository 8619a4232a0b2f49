//! File descriptors, of which the daemon may have only so many open.

use anyhow::{Context, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that no VM may take: for users' requests, for what is read from `/proc`, and for
/// killing. With fewer a daemon that is short of descriptors cannot be asked what it is short of;
/// more are lost to VMs, which take some eight each.
const RESERVE: usize = 24;

/// Raises the limit as far as the daemon may. The usual limit is 1024, enough for about 120 VMs.
pub(crate) fn raise() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!("the limit of open files cannot be raised: {e}");
    }
}

/// Whether there are descriptors left for a VM.
///
/// # Errors
/// There are not: the limit, and what to do.
pub(crate) fn check() -> anyhow::Result<()> {
    let Some(most) = getrlimit(Resource::Nofile).current else { return Ok(()) };
    let open =
        std::fs::read_dir("/proc/self/fd").context("cannot count the open files of plimsolld")?.count();
    if u64::try_from(open + RESERVE).is_ok_and(|needed| needed <= most) {
        return Ok(());
    }
    bail!(
        "plimsolld may have too few files open ({most}): raise its limit (ulimit -n, or LimitNOFILE= of its unit) and restart it, \
         or stop a VM"
    )
}
