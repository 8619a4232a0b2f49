use plimsoll_units::Pages;

use crate::account::{Kind, SharingTraffic, Traffic};
use crate::content::MAPPINGS_OF_RUN;
use crate::transition::Vm;

/// A VM's memory in figures, all of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Guest RAM.
    pub size: Pages,
    /// Pages that the VM may hold.
    pub grant: Pages,
    /// Pages that it holds, or is about to: never less than what is resident, never above `grant`.
    pub held: Pages,
    /// Pages in the guest's balloon.
    pub ballooned: Pages,
    /// Pages with nothing behind them, the ballooned ones included.
    pub absent: Pages,
    /// Pages that are compressed.
    pub compressed: Pages,
    /// The part of `held` that they occupy.
    pub store: Pages,
    /// Pages that are in the swap only.
    pub swapped: Pages,
    /// Pages that are mappings of frames.
    pub shared: Pages,
    /// Pages that were dropped because they held zeros, and were not touched since. Part of
    /// `absent`.
    pub zero: Pages,
    /// Few of the mappings that a process may have are left: only long runs of pages are shared.
    pub mappings_full: bool,
    /// What was compressed and swapped, and back.
    pub traffic: Traffic,
    /// What was shared, and what of that was written again.
    pub sharing: SharingTraffic,
    /// Chunks with no page behind them.
    pub chunks_empty: u64,
    /// Chunks that the kernel serves by itself.
    pub chunks_large: u64,
    /// Chunks served page by page.
    pub chunks_small: u64,
    /// Pages beyond the grant that faults wait for now.
    pub wanted: Pages,
    /// Faults that needed memory, since the start.
    pub faults: u64,
    /// How many of them had to wait for a grant.
    pub waits: u64,
}

impl Stats {
    pub(crate) fn of(vm: &Vm) -> Self {
        let account = vm.account();
        let size = vm.memory.layout().pages();
        Self {
            size,
            grant: account.grant(),
            held: account.held(),
            ballooned: account.ballooned(),
            // A page that is being brought back is charged before it leaves the place where it was,
            // and counts twice meanwhile.
            absent: size
                .saturating_sub(account.held().saturating_sub(account.store()))
                .saturating_sub(account.compressed())
                .saturating_sub(account.swapped())
                .saturating_sub(account.shared()),
            shared: account.shared(),
            zero: account.zero(),
            mappings_full: account.mappings() + MAPPINGS_OF_RUN > vm.frames.most_for_short_runs(),
            compressed: account.compressed(),
            store: account.store(),
            swapped: account.swapped(),
            traffic: account.traffic,
            sharing: account.sharing,
            chunks_empty: account.chunks(Kind::Empty),
            chunks_large: account.chunks(Kind::Large),
            chunks_small: account.chunks(Kind::Small),
            wanted: account.wanted(),
            faults: account.faults(),
            waits: account.waits(),
        }
    }
}
