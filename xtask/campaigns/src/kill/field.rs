//! What a campaign runs on: a daemon whose state and whose VMs' swap space are on small file
//! systems of their own.

use std::os::unix::fs::symlink;
use std::thread;

use anyhow::{Context, Result, anyhow};
use plimsoll_lab::workspace::note;
use plimsoll_operate::Stage;
use plimsoll_operate::swap_space::SwapSpace;
use plimsoll_operate::tmpfs::Tmpfs;
use plimsoll_units::Bytes;

use super::change::{POOL_LIMIT, POOLS};
use super::without_ring;

/// Machine memory of the daemon for each VM: some 11 MiB of overhead, and 15 MiB for a guest that
/// uses 24 MiB. Balloons, sharing, compression and swap have to bring the rest.
const PART: Bytes = Bytes::mib(26);
/// The file system of the state directory: consoles of VMs take up to 4 MiB each.
const STATE: Bytes = Bytes::mib(96);
/// Swap space for each VM: its size, and what stays free of the file system.
const SWAP_PART: Bytes = Bytes::mib(36);

/// Samples as often as possible, so that idle memory shows within a few points.
const SETTINGS: &str = "sample_period = 1\n";

/// A daemon and where it keeps things.
pub(super) struct Field {
    // Dropped first: what it started has files open in the others.
    pub(super) stage: Stage,
    pub(super) swap: SwapSpace,
    /// `None`: this user may not mount.
    pub(super) state: Option<Tmpfs>,
    pub(super) budget: Bytes,
}

impl Field {
    /// A daemon for `vms` VMs.
    pub(super) fn open(vms: usize) -> Result<Self> {
        let count = u64::try_from(vms)?;
        let state = Tmpfs::mount("plimsoll-state-", STATE);
        if let Err(error) = &state {
            note(&format!(
                "full disks, swap space that cannot be written and few descriptors are left out: {error:#}"
            ));
        }
        let state = state.ok();
        let swap = Bytes(SWAP_PART.0 * count);
        let swap = if state.is_some() { SwapSpace::mounted(swap)? } else { SwapSpace::new(swap)? };
        let budget = Bytes(PART.0 * count);
        let settings = format!("{SETTINGS}{}", swap.setting());
        let stage = Stage::open_where(budget, &settings, |directory| match &state {
            Some(state) => {
                symlink(state.path(), directory.join("state")).context("putting the state elsewhere")
            }
            None => Ok(()),
        })?;
        stage.succeed(&["pool", "create", POOLS[0], "--shares", "high"])?;
        stage.succeed(&["pool", "create", POOLS[1], "--limit", &POOL_LIMIT.to_string()])?;
        Ok(Self { stage, swap, state, budget })
    }

    /// Returns whether attacks can be made that only root can make.
    pub(super) fn is_roots(&self) -> bool {
        self.state.is_some()
    }

    /// Starts the daemon, which must not run. Where `without_ring`, neither it nor VMMs that it
    /// starts have io_uring.
    pub(super) fn start_daemon(&mut self, without_ring: bool) -> Result<()> {
        if !without_ring {
            return self.stage.start_daemon();
        }
        // The filter is the thread's, and that of processes which it starts.
        thread::scope(|scope| {
            let starter = scope.spawn(|| {
                without_ring::from_now_on()?;
                self.stage.start_daemon()
            });
            starter.join().map_err(|_| anyhow!("the thread that starts the daemon panicked"))?
        })
    }
}
