//! Page sharing as far as a plan needs it. Zero pages cost nothing to share. Of their content VMs
//! of a domain have a part in common; a page of it can be shared once two of them have been scanned
//! that far, and all sharers together then hold one frame of it (Waldspurger 2002, section 4).

use plimsoll_units::Pages;

use crate::memory::{Memory, portion, shift};
use crate::random::Random;

/// How far a VM has been scanned.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    /// Pages of the common content that have been found.
    known: Pages,
    random: Random,
}

/// Pages that are scanned at once: fewer, and rounding would decide what is found.
const BATCH: u64 = 64;

impl Scan {
    pub(crate) fn new(random: Random) -> Self {
        Self { known: Pages::ZERO, random }
    }

    pub(crate) fn known(&self) -> Pages {
        self.known
    }

    /// Looks at `n` random pages of `memory`. The part `common` of its content is like others'.
    /// Zero pages are shared at once.
    pub(crate) fn look(&mut self, memory: &mut Memory, n: Pages, common: f64) {
        let held = memory.held();
        let zeros = self.hits(n, memory.blank, held).min(memory.blank);
        shift(&mut memory.blank, &mut memory.zero, zeros);
        let potential = scaled(memory.active + memory.cold + memory.common, common);
        let unknown = potential.saturating_sub(self.known);
        let found = self.hits(n, unknown, held).min(unknown);
        self.known = (self.known + found).min(potential);
    }

    /// How many of `n` random pages out of `all` are among `wanted`: the mean, rounded up or down
    /// by chance.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a mean of page counts"
    )]
    fn hits(&mut self, n: Pages, wanted: Pages, all: Pages) -> Pages {
        if all == Pages::ZERO || wanted == Pages::ZERO {
            return Pages::ZERO;
        }
        Pages((n.0 as f64 * wanted.0 as f64 / all.0 as f64 + self.random.unit()) as u64)
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a part of a page count"
)]
fn scaled(pages: Pages, by: f64) -> Pages {
    Pages((pages.0 as f64 * by) as u64)
}

/// Lets the VMs of a domain share what the scans of two of them have found. Returns the frames that
/// they hold together.
pub(crate) fn share(vms: &mut [(&mut Memory, Pages)]) -> Pages {
    let mut known: Vec<Pages> = vms.iter().map(|(_, known)| *known).collect();
    known.sort_unstable();
    let common = known.len().checked_sub(2).and_then(|i| known.get(i)).copied().unwrap_or_default();
    for (memory, known) in vms.iter_mut() {
        let more = common.min(*known).saturating_sub(memory.common);
        memory.share(more);
    }
    vms.iter().map(|(memory, _)| memory.common).max().unwrap_or_default()
}

/// Divides a scan of `n` pages among VMs that hold `held`, in proportion, in whole batches.
/// `credit` keeps what is left over.
pub(crate) fn divide_scan(n: Pages, held: &[Pages], credit: &mut [u64]) -> Vec<Pages> {
    let all: u64 = held.iter().map(|h| h.0).sum();
    let mut take = |(held, credit): (&Pages, &mut u64)| {
        *credit = credit.saturating_add(portion(n, *held, Pages(all)).0.max(u64::from(held.0 > 0)));
        let batch = *credit / BATCH * BATCH;
        *credit -= batch;
        Pages(batch)
    };
    held.iter().zip(credit.iter_mut()).map(&mut take).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(cold: u64) -> Memory {
        Memory { cold: Pages(cold), ..Memory::default() }
    }

    #[test]
    fn one_vm_alone_shares_nothing_and_more_hold_one_frame() {
        let (mut a, mut b, mut c) = (guest(1000), guest(1000), guest(1000));
        assert_eq!(share(&mut [(&mut a, Pages(300))]), Pages::ZERO);
        let frames = share(&mut [(&mut a, Pages(300)), (&mut b, Pages(200)), (&mut c, Pages(100))]);
        assert_eq!((frames, a.common, b.common, c.common), (Pages(200), Pages(200), Pages(200), Pages(100)));
        // 500 pages were shared and 200 frames are held: 300 were saved.
        assert_eq!(a.held() + b.held() + c.held() + frames, Pages(3000 - 300));
    }

    #[test]
    fn a_scan_finds_zero_pages_and_common_content_in_proportion() {
        let mut memory = Memory { cold: Pages(5000), blank: Pages(5000), ..Memory::default() };
        let mut scan = Scan::new(Random::new(1, 1));
        scan.look(&mut memory, Pages(1000), 0.4);
        assert!(memory.zero.0.abs_diff(500) <= 1 && scan.known().0.abs_diff(200) <= 1, "{memory:?} {scan:?}");
        for _ in 0..1000 {
            scan.look(&mut memory, Pages(1000), 0.4);
        }
        assert_eq!((memory.blank, scan.known()), (Pages(0), Pages(2000)));
    }
}
