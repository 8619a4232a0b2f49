//! The daemon's limit of open file descriptors, and how it is divided.
//!
//! They are divided: [`RESERVE`] for the daemon itself, a part for connections of the API, one for
//! sockets that VMMs have yet to take ([`Kept`]), the rest for VMs. A flood of connections takes
//! none that VMs need, and VMs take none that commands need.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that neither VMs nor connections may take: for files that are written, for what is
/// read from `/proc`, and for killing. More are lost to VMs, which take some eight each.
const RESERVE: usize = 24;
/// Most connections of the API at a time. Each takes some 25 KiB besides its descriptor, and 1000
/// VMs that are started at once are no more than a few hundred requests at a time.
const MOST_CONNECTIONS: usize = 256;
/// Fewest connections: a script, an operator, a monitor, and what TCP is given.
const FEWEST_CONNECTIONS: usize = 8;

/// Raises the limit as far as the daemon may. The usual limit is 1024, enough for about 100 VMs.
pub(crate) fn raise() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!("the limit of open files cannot be raised: {e}");
    }
}

/// How many connections of the API there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connections {
    pub(crate) unix: usize,
    /// Those of TCP, which are a part of their own: clients without a token cannot use up what
    /// local commands need.
    pub(crate) tcp: usize,
}

impl Connections {
    /// What the limit of open files leaves for connections.
    pub(crate) fn allowed() -> Self {
        Self::within(getrlimit(Resource::Nofile).current)
    }

    fn within(limit: Option<u64>) -> Self {
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let all = (limit / 8).clamp(FEWEST_CONNECTIONS, MOST_CONNECTIONS);
        Self { unix: all - all / 4, tcp: all / 4 }
    }

    fn all(self) -> usize {
        self.unix + self.tcp
    }
}

/// Connections of the API that are open, of this process as the limit is.
static OPEN_CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

/// Counts a connection of the API for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(());

impl Counted {
    pub(crate) fn new() -> Self {
        OPEN_CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        OPEN_CONNECTIONS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Most connected sockets that wait for VMMs to read. A VMM that reads has its sockets at once.
/// With fewer, VMMs that are late for a moment have their guests refused while others do not read;
/// more are lost to VMs.
pub(crate) const MOST_KEPT: usize = 16;
/// As many of them as there always may be: a few VMMs that are late.
const FEWEST_KEPT: usize = 4;

/// Sockets that wait, of this process as the limit is.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// Counts a socket that waits for a VMM for as long as it lives.
#[derive(Debug)]
pub(crate) struct Kept(());

impl Kept {
    /// `None`: no more may wait.
    pub(crate) fn new() -> Option<Self> {
        let most = most_kept(getrlimit(Resource::Nofile).current);
        let one_more = |kept: usize| (kept < most).then_some(kept + 1);
        KEPT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok().then(|| Self(()))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many sockets the limit of open files lets wait.
fn most_kept(limit: Option<u64>) -> usize {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    (limit / 16).clamp(FEWEST_KEPT, MOST_KEPT)
}

/// Whether there are descriptors left for a VM.
///
/// # Errors
/// There are not: the limit, and what to do.
pub(crate) fn check() -> anyhow::Result<()> {
    let Some(most) = getrlimit(Resource::Nofile).current else { return Ok(()) };
    plimsoll_sys::lock(&SPARE).take(most, || {
        let open = std::fs::read_dir("/proc/self/fd").context("cannot count the open files of plimsolld")?;
        // A connection that begins in between counts twice, and one more VM is refused.
        let connections = OPEN_CONNECTIONS.load(Ordering::Relaxed);
        let sockets = most_kept(Some(most)).saturating_sub(KEPT.load(Ordering::Relaxed));
        let kept_back = Connections::within(Some(most)).all().saturating_sub(connections) + RESERVE;
        Ok(open.count() + kept_back + sockets)
    })
}

/// Most descriptors that a VM takes, while it is started as well. Less, and the limit could be met
/// between two counts; more, and they are counted more often.
const EACH: u64 = 80;

/// The descriptors that [`check`] found.
static SPARE: Mutex<Spare> = Mutex::new(Spare { most: 0, vms: 0 });

/// VMs for which there are certainly descriptors. A count costs time for each open file: one for
/// each VM would make the start of many VMs slow.
#[derive(Debug)]
struct Spare {
    /// The limit at the last count.
    most: u64,
    /// VMs that may still begin before the next.
    vms: u64,
}

impl Spare {
    /// Takes the descriptors of one VM out of the limit `most`. `count` tells how many descriptors
    /// are in use or kept back.
    fn take(&mut self, most: u64, count: impl FnOnce() -> anyhow::Result<usize>) -> anyhow::Result<()> {
        if self.most == most && self.vms > 0 {
            self.vms -= 1;
            return Ok(());
        }
        let used = u64::try_from(count()?).unwrap_or(u64::MAX);
        let Some(left) = most.checked_sub(used) else {
            bail!(
                "plimsolld may have too few files open ({most}): raise its limit (ulimit -n, or LimitNOFILE= of its unit) and \
                 restart it, or stop a VM"
            )
        };
        (self.most, self.vms) = (most, (left / EACH).saturating_sub(1));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_have_a_part_of_any_limit() {
        let all = |limit| Connections::within(limit).all();
        assert_eq!([Some(0), Some(64), Some(256), Some(1024)].map(all), [8, 8, 32, 128]);
        assert_eq!([Some(1 << 20), Some(u64::MAX), None].map(all), [256; 3]);
        assert_eq!(Connections::within(Some(64)), Connections { unix: 6, tcp: 2 });
        assert_eq!([Some(0), Some(64), Some(128), Some(1024), None].map(most_kept), [4, 4, 8, 16, 16]);
    }

    /// Starts VMs of `each` descriptors until one is refused. Returns how many there were, and how
    /// often all descriptors were counted.
    fn start_all(most: u64, each: usize) -> (usize, usize) {
        let (mut spare, mut open, mut counts) = (Spare { most: 0, vms: 0 }, 20, 0);
        for vms in 0.. {
            let taken = spare.take(most, || {
                counts += 1;
                Ok(open)
            });
            if taken.is_err() {
                return (vms, counts);
            }
            open += each;
            assert!(open as u64 <= most + each as u64, "{open} of {most}");
        }
        unreachable!()
    }

    #[test]
    fn descriptors_are_not_counted_for_each_vm() {
        let (vms, counts) = start_all(20_000, 8);
        // The last that one count each would admit.
        assert_eq!(vms, (20_000 - 20) / 8 + 1);
        assert!(counts < 80, "{counts} counts for {vms} VMs");
        let (vms, _) = start_all(64, 8);
        assert_eq!(vms, (64 - 20) / 8 + 1);
    }

    #[test]
    fn another_limit_is_counted_anew() {
        let mut spare = Spare { most: 0, vms: 0 };
        spare.take(1000, || Ok(10)).unwrap();
        assert!(spare.vms > 0);
        let refused = spare.take(64, || Ok(65)).unwrap_err().to_string();
        assert!(refused.contains("too few files open (64)"), "{refused}");
    }
}
