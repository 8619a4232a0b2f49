use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn layout() -> Layout {
    let low = PpnRange::new(Ppn(0), Pages(1024));
    let high = PpnRange::new(Ppn(1 << 20), Pages(512));
    Layout::new(&[low, high]).unwrap()
}

#[test]
fn regions_that_cannot_be_laid_out_are_refused() {
    for bad in [
        &[][..],
        &[(0, 0)],
        &[(1, 512)],
        &[(0, 511)],
        &[(512, 512), (0, 512)],
        &[(0, 1024), (512, 512)],
        &[(u64::MAX - 511, 512)],
        &[(1 << 40, 512)],
    ] {
        let regions: Vec<_> = bad.iter().map(|&(s, n)| PpnRange::new(Ppn(s), Pages(n))).collect();
        assert!(Layout::new(&regions).is_err(), "{bad:?}");
    }
}

#[test]
fn addresses_are_ram_only_within_one_region() {
    let layout = layout();
    assert_eq!(layout.offset(0, 4 << 20), Some(0));
    assert_eq!(layout.offset(1, 4 << 20), None);
    assert_eq!(layout.offset(4 << 20, 1), None);
    assert_eq!(layout.offset(4 << 30, 4096), Some(4 << 20));
    assert_eq!(layout.offset(u64::MAX, 2), None);
    assert_eq!(layout.ppn(ChunkNo(2), 3), Ppn((1 << 20) + 3));
    assert_eq!(layout.ppn(ChunkNo(1), 511), Ppn(1023));
}

proptest! {
    #[test]
    fn any_list_of_ranges_is_sorted_into_the_pages_that_are_ram(
        ranges in prop::collection::vec(
            (prop_oneof![0u64..2000, (1u64 << 20) - 600..(1 << 20) + 600, any::<u64>()],
             prop_oneof![0u64..700, any::<u64>()]),
            0..20,
        )
    ) {
        let layout = layout();
        let ranges: Vec<_> = ranges.iter().map(|&(s, n)| PpnRange::new(Ppn(s), Pages(n))).collect();
        let (sets, _ignored) = layout.by_chunk(&ranges);
        let mut found = BTreeSet::new();
        let mut last = None;
        for (chunk, set) in sets {
            prop_assert!(last < Some(chunk) && !set.is_empty());
            last = Some(chunk);
            found.extend(set.iter().map(|slot| layout.ppn(chunk, slot).0));
        }
        let ram = (0..1024).chain(1 << 20..(1 << 20) + 512);
        let named = |ppn: &u64| ranges.iter().any(|r| r.start.0 <= *ppn && *ppn < r.end());
        prop_assert_eq!(found, ram.filter(named).collect::<BTreeSet<_>>());
    }
}
