use std::time::Duration;

use plimsoll_policy::Account;
use plimsoll_units::{Bytes, Pages};

use crate::demand::Want;
use crate::memory::{Bounds, Memory, Taken};
use crate::random::Random;
use crate::scenario::GuestSpec;

/// How often a guest's swing around its demand is drawn anew: programs start and end in seconds to
/// minutes.
const SWING: Duration = Duration::from_secs(20);

/// A guest that runs.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) memory: Memory,
    size: Pages,
    /// What it has yet to zero while it boots.
    to_zero: Pages,
    /// The most that was ever active.
    ever_active: Pages,
    swing: f64,
    next_swing: Duration,
    random: Random,
    /// What it wants now.
    pub(crate) want: Wanted,
}

/// Active memory and content that a guest wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) active: Pages,
    content: Pages,
}

/// What bounds a guest in a step, whatever it is granted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speeds {
    pub(crate) zero: Pages,
    pub(crate) touch: Pages,
    pub(crate) fill: Pages,
    pub(crate) swap_in: Pages,
}

impl Guest {
    pub(crate) fn new(size: Pages, spec: &GuestSpec, random: Random) -> Self {
        Self {
            memory: Memory::of_size(size),
            size,
            to_zero: spec.zeroes,
            ever_active: Pages::ZERO,
            swing: 0.0,
            next_swing: Duration::ZERO,
            random,
            want: Wanted::default(),
        }
    }

    /// Sets what it wants `up` after power on.
    pub(crate) fn look_ahead(&mut self, spec: &GuestSpec, up: Duration) {
        if up >= self.next_swing {
            self.swing = self.random.unit() * 2.0 - 1.0;
            self.next_swing = up + SWING;
        }
        let since = up.checked_sub(spec.demand.spread);
        let want = since.map_or(Want::default(), |since| spec.demand.at(since, self.swing));
        let pages = |bytes: Bytes| Pages::ceil(bytes).min(self.size);
        let active = pages(want.active);
        self.ever_active = self.ever_active.max(active);
        let content = want.content.map_or(self.ever_active, pages).max(active);
        self.want = Wanted { active, content };
    }

    /// Goes on for a step with `granted` machine pages beyond those that it has.
    pub(crate) fn run(&mut self, spec: &GuestSpec, speeds: Speeds, granted: Pages) -> Taken {
        let mut bounds = Bounds { touch: speeds.zero, swap_in: speeds.swap_in, machine: granted };
        // What a balloon has taken meanwhile needs no zeroing.
        self.to_zero = self.to_zero.min(self.memory.empty);
        let zeroed = self.memory.zero_out(self.to_zero, &mut bounds);
        self.to_zero -= zeroed.touched;
        let Wanted { active, content } = self.want;
        // Active memory comes at once, page cache by and by.
        let have = self.memory.content();
        let content = content.min(have.max(active) + speeds.fill).max(active);
        let taken = self.memory.follow(active, content, Bounds { touch: speeds.touch, ..bounds });
        // Zeroing is not over yet: these pages are not free, they are being written.
        if spec.reports_free && self.to_zero == Pages::ZERO {
            self.memory.report_free();
        }
        Taken {
            touched: zeroed.touched + taken.touched,
            machine: zeroed.machine + taken.machine,
            swapped_in: taken.swapped_in,
        }
    }

    /// What its balloon driver says of it; `None`: it says nothing.
    pub(crate) fn account(&self, spec: &GuestSpec) -> Option<Account> {
        let Memory { ballooned, .. } = self.memory;
        let (available, free) = (self.memory.available(), self.memory.free());
        spec.asks.then_some(Account { total: self.size, available, free, ballooned, stalls: 0 })
    }

    /// Returns the pages that it wants to zero and to touch and could not in a step with `granted`
    /// machine pages more.
    pub(crate) fn lacking(&self, spec: &GuestSpec, speeds: Speeds, granted: Pages) -> Pages {
        let mut after = self.clone();
        after.run(spec, speeds, granted);
        after.short() + after.to_zero
    }

    /// Pages that it wants to touch and cannot.
    pub(crate) fn short(&self) -> Pages {
        self.memory.short_of(self.want.active)
    }
}
