use plimsoll_units::Pages;

/// Shared frames that a VM maps, by how many share them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedFrames {
    /// How many guest pages map each of them, those of this VM included; 0 counts as 1.
    pub sharers: u64,
    /// This VM's guest pages that map such frames.
    pub pages: Pages,
}

/// The machine memory that a VM is charged for, which is what it *holds* wherever memory is
/// divided.
///
/// - A private page costs a page.
/// - A compressed page costs what it takes in the store (`compressed`): the savings are its VM's.
/// - A shared frame costs its sharers equal parts: a page that maps a frame of `n` sharers costs `1
///   / n` of a page. A page of zeros that maps no frame costs nothing.
///
/// Equal parts, because then what all VMs are charged is what their memory takes, whoever came
/// first: a page a VM too much at worst, from rounding up, never less. Were the first sharer
/// charged alone, its charge would jump when it finds out that others have the same page, and
/// theirs when it leaves; were nobody charged, a VM would pay nothing for memory that it keeps from
/// others as soon as one of them has the same content. A sharer that leaves raises the charge of
/// the others by no more than a frame in all.
///
/// What a VM saves shows in what it holds and not in its entitlement: it has more guest pages in
/// memory for the same charge, and is the later above its target. It is never charged for more than
/// the guest pages that are in memory.
pub fn charge(private: Pages, compressed: Pages, shared: &[SharedFrames]) -> Pages {
    /// Parts of a page: enough that rounding each kind of frame up does not add up to a page before
    /// there are 2^12 kinds.
    const PARTS: u128 = 1 << 32;
    let parts = shared.iter().fold(0u128, |sum, frames| {
        sum.saturating_add((u128::from(frames.pages.0) * PARTS).div_ceil(u128::from(frames.sharers.max(1))))
    });
    let pages = u64::try_from(parts.div_ceil(PARTS)).unwrap_or(u64::MAX);
    private.saturating_add(compressed).saturating_add(Pages(pages))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_of_two_costs_each_half() {
        let shared = [SharedFrames { sharers: 2, pages: Pages(100) }];
        assert_eq!(charge(Pages(10), Pages(3), &shared), Pages(63));
        // Many pages of one VM on one frame cost one page together.
        assert_eq!(charge(Pages(0), Pages(0), &[SharedFrames { sharers: 7, pages: Pages(7) }]), Pages(1));
        let huge = SharedFrames { sharers: 0, pages: Pages(u64::MAX) };
        assert_eq!(charge(Pages(1), Pages(0), &[huge, huge]), Pages(u64::MAX));
    }

    proptest! {
        #[test]
        fn what_all_are_charged_is_what_their_frames_take(frames in prop::collection::vec(prop::collection::vec(0u64..3, 5), 0..60)) {
            // For each frame, how many pages of each of five VMs map it.
            let mapped: Vec<&Vec<u64>> = frames.iter().filter(|f| f.iter().sum::<u64>() > 0).collect();
            let charged: u64 = (0..5).map(|vm| {
                let shared: Vec<SharedFrames> = mapped.iter()
                    .map(|f| SharedFrames { sharers: f.iter().sum(), pages: Pages(f[vm]) }).collect();
                charge(Pages(0), Pages(0), &shared).0
            }).sum();
            let taken = mapped.len() as u64;
            prop_assert!(charged >= taken && charged <= taken + 5, "{} {}", charged, taken);
        }

        #[test]
        fn a_sharer_that_leaves_costs_the_others_a_frame_at_most(sharers in 2u64..100) {
            let each = |n| (1u64 << 20) / n;
            prop_assert!((each(sharers - 1) - each(sharers)) * (sharers - 1) <= 1 << 20);
            let pages = Pages(1 << 20);
            let of = |sharers| charge(Pages(0), Pages(0), &[SharedFrames { sharers, pages }]);
            prop_assert!(of(sharers) <= of(sharers - 1) && of(sharers) < pages);
        }
    }
}
