use plimsoll_units::Pages;

/// A guest's memory by what its pages are, in the guest's eyes and in the host's. They always add
/// up to its size.
///
/// | | the guest has content in it | free in the guest |
/// |---|---|---|
/// | machine page of its own | `active`, `cold` | `loose`, `blank` |
/// | shared | `common` | `zero` |
/// | on swap | `swapped` | `stale` |
/// | nothing | | `empty`, `ballooned` (the guest may not use it) |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Touched all the time.
    pub(crate) active: Pages,
    /// Not touched now.
    pub(crate) cold: Pages,
    /// Used once, free now; the host does not know.
    pub(crate) loose: Pages,
    /// Zeroed by the guest and not found by a scan yet.
    pub(crate) blank: Pages,
    /// Zeroed and shared with the zero page.
    pub(crate) zero: Pages,
    /// Shared with other VMs.
    pub(crate) common: Pages,
    pub(crate) swapped: Pages,
    pub(crate) stale: Pages,
    pub(crate) ballooned: Pages,
    pub(crate) empty: Pages,
}

/// What bounds a guest's growth in a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Pages that it can bring into use in the time.
    pub(crate) touch: Pages,
    /// Pages that can be read from swap in the time.
    pub(crate) swap_in: Pages,
    /// Machine pages that it gets.
    pub(crate) machine: Pages,
}

/// What a step's growth took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) touched: Pages,
    pub(crate) swapped_in: Pages,
    pub(crate) machine: Pages,
}

impl Taken {
    fn fits(&self, bounds: &Bounds) -> bool {
        self.machine <= bounds.machine && self.swapped_in <= bounds.swap_in
    }
}

impl Memory {
    pub(crate) fn of_size(size: Pages) -> Self {
        Self { empty: size, ..Self::default() }
    }

    #[cfg(test)]
    pub(crate) fn sum(&self) -> Pages {
        self.held() + self.zero + self.common + self.on_swap() + self.ballooned + self.empty
    }

    /// Machine pages of its own.
    pub(crate) fn held(&self) -> Pages {
        self.active + self.cold + self.loose + self.blank
    }

    /// Pages that the guest finds backed: its own and shared ones.
    pub(crate) fn allocated(&self) -> Pages {
        self.held() + self.zero + self.common
    }

    pub(crate) fn on_swap(&self) -> Pages {
        self.swapped + self.stale
    }

    /// Pages with content that the guest keeps.
    pub(crate) fn content(&self) -> Pages {
        self.active + self.cold + self.common + self.swapped
    }

    /// Pages that the guest could use without giving something up.
    pub(crate) fn available(&self) -> Pages {
        self.cold + self.free()
    }

    /// Pages without content that the guest may use.
    pub(crate) fn free(&self) -> Pages {
        self.loose + self.blank + self.zero + self.stale + self.empty
    }

    /// The part of `active` pages that are its own: shared ones are used like any others.
    fn own(&self, active: Pages) -> Pages {
        active - portion(active, self.common, self.content()).min(self.common)
    }

    /// What the guest wants to touch and cannot, of `active` wanted.
    pub(crate) fn short_of(&self, active: Pages) -> Pages {
        self.own(active).saturating_sub(self.active)
    }

    /// Writes zeros to up to `n` pages that nothing backs.
    pub(crate) fn zero_out(&mut self, n: Pages, bounds: &mut Bounds) -> Taken {
        let done = n.min(self.empty).min(bounds.touch).min(bounds.machine);
        shift(&mut self.empty, &mut self.blank, done);
        bounds.touch -= done;
        bounds.machine -= done;
        Taken { touched: done, machine: done, ..Taken::default() }
    }

    /// The guest comes to use `active` pages and keep `content`, as far as its balloon leaves it
    /// that and `bounds` allow.
    pub(crate) fn follow(&mut self, active: Pages, content: Pages, bounds: Bounds) -> Taken {
        self.forget(self.content().saturating_sub(content.max(active)));
        let own = self.own(active);
        let rest = self.active.saturating_sub(own);
        shift(&mut self.active, &mut self.cold, rest);
        // A guest that pages touches old content and new in turn: neither waits for the other's
        // end.
        let fresh = content.max(active).saturating_sub(self.content()).min(bounds.touch);
        let old = own.saturating_sub(self.active).min(self.swapped);
        let for_old =
            if old + fresh > bounds.machine { portion(bounds.machine, old, old + fresh) } else { old };
        let awake = self.wake(own, Bounds { machine: for_old, ..bounds });
        let left = Bounds {
            touch: bounds.touch,
            swap_in: bounds.swap_in - awake.swapped_in,
            machine: bounds.machine - awake.machine,
        };
        let fresh = self.fill(own, content.max(active), left);
        Taken {
            touched: fresh.touched,
            swapped_in: awake.swapped_in + fresh.swapped_in,
            machine: awake.machine + fresh.machine,
        }
    }

    /// The guest frees `n` pages of its content, idle ones first.
    fn forget(&mut self, n: Pages) {
        let [cold, swapped, common] = take([&mut self.cold, &mut self.swapped, &mut self.common], n);
        self.loose += cold;
        self.stale += swapped;
        // A frame stands for it until the guest writes there; for the host it is as if it had
        // nothing.
        self.empty += common;
        let active = (n - cold - swapped - common).min(self.active);
        shift(&mut self.active, &mut self.loose, active);
    }

    /// Old content becomes active again. A working set is spread evenly over memory and swap.
    fn wake(&mut self, active: Pages, bounds: Bounds) -> Taken {
        let lacking = active.saturating_sub(self.active);
        let [cold, swapped] = take([&mut self.cold, &mut self.swapped], lacking);
        let read = swapped.min(bounds.swap_in).min(bounds.machine);
        self.swapped += swapped - read;
        self.active += cold + read;
        Taken { swapped_in: read, machine: read, ..Taken::default() }
    }

    /// New content. The guest takes pages that it freed first, then any free page.
    fn fill(&mut self, active: Pages, content: Pages, bounds: Bounds) -> Taken {
        let wish = content.saturating_sub(self.content()).min(bounds.touch);
        let warm = wish.min(self.loose);
        self.loose -= warm;
        let mut after = *self;
        let mut taken = after.take_free(wish - warm);
        if !taken.fits(&bounds) {
            // Free pages come in random order: the guest stands still at the first that nothing may
            // back.
            let all = taken.touched;
            let within = |of: Pages, max: Pages| if of > max { portion(all, max, of) } else { all };
            let mut n = within(taken.machine, bounds.machine).min(within(taken.swapped_in, bounds.swap_in));
            loop {
                after = *self;
                taken = after.take_free(n);
                if taken.fits(&bounds) {
                    break;
                }
                // Rounded up by one in one class or another.
                n -= Pages(1);
            }
        }
        *self = after;
        let fresh = warm + taken.touched;
        let used = fresh.min(active.saturating_sub(self.active));
        self.active += used;
        self.cold += fresh - used;
        Taken { touched: fresh, ..taken }
    }

    fn take_free(&mut self, n: Pages) -> Taken {
        let [blank, zero, stale, empty] =
            take([&mut self.blank, &mut self.zero, &mut self.stale, &mut self.empty], n);
        Taken { touched: blank + zero + stale + empty, swapped_in: stale, machine: zero + stale + empty }
    }

    /// The guest reports its free pages to the host.
    pub(crate) fn report_free(&mut self) {
        self.empty += self.loose + self.blank + self.zero + self.stale;
        (self.loose, self.blank, self.zero, self.stale) =
            (Pages::ZERO, Pages::ZERO, Pages::ZERO, Pages::ZERO);
    }

    /// The balloon takes up to `n` pages: free ones first, then idle content, which the guest drops
    /// or writes to its own disk, and at last what it uses.
    pub(crate) fn inflate(&mut self, n: Pages) {
        let free = [&mut self.loose, &mut self.blank, &mut self.zero, &mut self.stale, &mut self.empty];
        let taken: Pages = take(free, n).into_iter().sum();
        let idle: Pages =
            take([&mut self.cold, &mut self.common, &mut self.swapped], n - taken).into_iter().sum();
        let used = (n - taken - idle).min(self.active);
        self.active -= used;
        self.ballooned += taken + idle + used;
    }

    /// Up to `n` pages with content turn out to be like others' and are shared.
    pub(crate) fn share(&mut self, n: Pages) {
        let shared: Pages = take([&mut self.active, &mut self.cold], n).into_iter().sum();
        self.common += shared;
    }

    pub(crate) fn deflate(&mut self, n: Pages) {
        let n = n.min(self.ballooned);
        shift(&mut self.ballooned, &mut self.empty, n);
    }

    /// Takes up to `n` machine pages by swapping: random ones among the idle, then among the
    /// active. Returns how many were freed and how many of those had to be written: a zero page is
    /// shared instead.
    pub(crate) fn swap_out(&mut self, n: Pages, writes: Pages) -> (Pages, Pages) {
        let mut after = *self;
        let result = after.swap_all(n);
        if result.1 <= writes {
            *self = after;
            return result;
        }
        self.swap_all(portion(result.0, writes, result.1))
    }

    fn swap_all(&mut self, n: Pages) -> (Pages, Pages) {
        let [cold, loose, blank] = take([&mut self.cold, &mut self.loose, &mut self.blank], n);
        let active = (n - cold - loose - blank).min(self.active);
        self.active -= active;
        self.swapped += cold + active;
        self.stale += loose;
        self.zero += blank;
        (cold + loose + blank + active, cold + loose + active)
    }
}

pub(crate) fn shift(from: &mut Pages, to: &mut Pages, n: Pages) {
    *from -= n;
    *to += n;
}

/// Takes up to `n` pages from all of `from`, from each in proportion to what it has.
fn take<const N: usize>(from: [&mut Pages; N], n: Pages) -> [Pages; N] {
    let all: Pages = from.iter().map(|p| **p).sum();
    let n = n.min(all);
    let mut before = Pages::ZERO;
    from.map(|pages| {
        // Differences of a rounded sum: they add up to `n`, and none exceeds what there is.
        let after = before + *pages;
        let taken = portion(n, after, all) - portion(n, before, all);
        *pages -= taken;
        before = after;
        taken
    })
}

/// `n * part / whole`, rounded down; nothing of nothing.
pub(crate) fn portion(n: Pages, part: Pages, whole: Pages) -> Pages {
    if whole == Pages::ZERO {
        return Pages::ZERO;
    }
    let portion = u128::from(n.0) * u128::from(part.0) / u128::from(whole.0);
    Pages(u64::try_from(portion).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FREE: Bounds = Bounds { touch: Pages(9999), swap_in: Pages(9999), machine: Pages(9999) };

    fn any_memory() -> impl Strategy<Value = Memory> {
        prop::array::uniform10(0..500u64).prop_map(|n| {
            let [active, cold, loose, blank, zero, common, swapped, stale, ballooned, empty] = n.map(Pages);
            Memory { active, cold, loose, blank, zero, common, swapped, stale, ballooned, empty }
        })
    }

    #[test]
    fn a_guest_uses_what_it_freed_before_it_asks_for_more() {
        let mut memory =
            Memory { active: Pages(10), loose: Pages(20), empty: Pages(70), ..Memory::default() };
        let taken = memory.follow(Pages(50), Pages(50), FREE);
        assert_eq!(taken.machine, Pages(20));
        assert_eq!(memory, Memory { active: Pages(50), empty: Pages(50), ..Memory::default() });
    }

    #[test]
    fn a_zero_page_is_shared_in_place_of_being_written() {
        let mut memory = Memory { cold: Pages(10), blank: Pages(90), ..Memory::default() };
        assert_eq!(memory.swap_out(Pages(50), Pages(99)), (Pages(50), Pages(5)));
        assert_eq!((memory.zero, memory.swapped), (Pages(45), Pages(5)));
    }

    #[test]
    fn a_balloon_takes_free_memory_then_idle_then_active() {
        let mut memory = Memory { active: Pages(10), cold: Pages(10), empty: Pages(10), ..Memory::default() };
        for (n, left) in [(10, (10, 10)), (10, (10, 0)), (5, (5, 0))] {
            memory.inflate(Pages(n));
            assert_eq!((memory.active.0, memory.cold.0), left);
        }
        assert_eq!(memory.short_of(Pages(10)), Pages(5));
    }

    proptest! {
        #[test]
        fn whatever_happens_pages_add_up_and_bounds_hold(
            memory in any_memory(), active in 0..6000u64, content in 0..6000u64, n in 0..6000u64,
            bounds in prop::array::uniform3(0..2000u64),
        ) {
            let [touch, swap_in, machine] = bounds.map(Pages);
            let bounds = Bounds { touch, swap_in, machine };
            let mut after = memory;
            let taken = after.follow(Pages(active), Pages(content), bounds);
            prop_assert_eq!(after.sum(), memory.sum());
            prop_assert!(taken.machine <= machine && taken.swapped_in <= swap_in && taken.touched <= touch);
            prop_assert!(after.held() <= memory.held() + taken.machine);
            prop_assert!(after.ballooned == memory.ballooned && after.active <= Pages(active));
            let held = after.held();
            let (freed, written) = after.swap_out(Pages(n), touch);
            prop_assert!(after.held() + freed == held && written <= touch && freed.0 <= n);
            after.inflate(Pages(n));
            after.report_free();
            after.deflate(Pages(n));
            let mut more = bounds;
            after.zero_out(Pages(n), &mut more);
            prop_assert_eq!(after.sum(), memory.sum());
        }
    }
}
