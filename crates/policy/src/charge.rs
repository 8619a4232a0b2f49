use plimsoll_units::Pages;

/// Shared frames that a VM maps, with the same number of sharers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedFrames {
    /// The number of guest pages that map each of them, with those of this VM; 0 counts as 1.
    pub sharers: u64,
    /// This VM's guest pages that map such frames.
    pub pages: Pages,
}

/// Returns the machine memory that a VM is charged for: the memory that it *holds* wherever memory
/// is divided.
///
/// - A private page costs a page.
/// - A compressed page costs the memory that it takes in the store (`compressed`): its VM has the
///   savings.
/// - A shared frame costs its sharers equal parts: a page that maps a frame of `n` sharers costs `1
///   / n` of a page. A page of zeros that maps no frame costs nothing.
///
/// With equal parts the charges of all VMs add up to the memory that they take, in any order of
/// arrival: rounding up adds a page a VM at worst. If only the first sharer were charged, its
/// charge would jump when another VM turns out to have the same page, and the charges of the others
/// when it leaves. If no sharer were charged, a VM would pay nothing for memory that it keeps from
/// others as soon as one of them has the same content. A sharer that leaves raises the charge of
/// the others by a frame in all at most.
///
/// A VM's savings show in the memory that it holds and not in its entitlement: it has more guest
/// pages in memory for the same charge, and rises above its target later. It is never charged for
/// more than its guest pages in memory.
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
        // Seven pages of one VM on one frame cost one page together.
        assert_eq!(charge(Pages(0), Pages(0), &[SharedFrames { sharers: 7, pages: Pages(7) }]), Pages(1));
        let huge = SharedFrames { sharers: 0, pages: Pages(u64::MAX) };
        assert_eq!(charge(Pages(1), Pages(0), &[huge, huge]), Pages(u64::MAX));
    }

    proptest! {
        #[test]
        fn what_all_are_charged_is_what_their_frames_take(frames in prop::collection::vec(prop::collection::vec(0u64..3, 5), 0..60)) {
            // For each frame the number of pages of each of five VMs that map it.
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
