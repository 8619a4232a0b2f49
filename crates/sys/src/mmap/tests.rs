use super::*;

const HUGE: usize = 2 << 20;

#[test]
fn memory_begins_as_zeros_where_it_was_asked_for() {
    for (len, align) in [(1, PAGE), (5000, PAGE), (1, HUGE), (HUGE + 1, HUGE), (3 * HUGE, 1)] {
        let mut memory = Memory::new(len, align).unwrap();
        assert_eq!(memory.space().base().as_ptr() as usize % align, 0);
        assert_eq!(memory.space().len(), len.next_multiple_of(PAGE));
        assert!(memory.bytes().iter().all(|byte| *byte == 0));
        memory.bytes_mut().fill(7);
        assert_eq!(memory.bytes().last(), Some(&7));
    }
}

#[test]
fn what_is_discarded_reads_as_zeros() {
    let mut memory = Memory::new(3 * PAGE, PAGE).unwrap();
    memory.bytes_mut().fill(7);
    memory.discard(PAGE..2 * PAGE).unwrap();
    memory.discard(0..0).unwrap();
    let filled = |page: usize| memory.bytes()[page * PAGE..][..PAGE].iter().all(|byte| *byte == 7);
    assert!(filled(0) && filled(2));
    assert!(memory.bytes()[PAGE..2 * PAGE].iter().all(|byte| *byte == 0));
}

#[test]
fn lengths_beyond_the_address_space_are_errors() {
    for align in [PAGE, HUGE] {
        assert!(Memory::new(usize::MAX, align).is_err());
        assert!(Memory::new(usize::MAX - PAGE, align).is_err());
        assert!(Memory::new(1 << 60, align).is_err());
    }
}

#[test]
#[should_panic = "a range of the address space"]
fn no_advice_is_given_beyond_the_end() {
    let space = AddressSpace::new(PAGE, PAGE, Access::None).unwrap();
    space.advise(0..2 * PAGE, Advice::SmallPages).ok();
}

#[test]
fn slack_and_dropped_mappings_are_unmapped() {
    let addresses =
        |space: &AddressSpace| space.base().as_ptr() as usize..space.base().as_ptr() as usize + space.len();
    let is_mapped = |address: usize| {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().any(|line| {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [start, end] = [start, end].map(|text| usize::from_str_radix(text, 16).unwrap());
            line.contains("---p") && line.trim_end().ends_with(" 0") && (start..end).contains(&address)
        })
    };
    // Larger than any other inaccessible mapping of a test, so that none takes its place.
    let space = AddressSpace::new(1 << 40, 1 << 40, Access::None).unwrap();
    let range = addresses(&space);
    assert!(is_mapped(range.start) && is_mapped(range.end - 1));
    assert!(!is_mapped(range.start - PAGE) && !is_mapped(range.end));
    drop(space);
    assert!(!is_mapped(range.start) && !is_mapped(range.end - 1));
}

#[test]
fn only_sparse_memory_counts_towards_nothing() {
    let counts = |memory: &Memory| {
        let at = memory.space().base().as_ptr() as usize;
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in smaps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let bound = |text| usize::from_str_radix(text, 16).ok();
            if let Some((start, end)) = range.and_then(|(start, end)| bound(start).zip(bound(end))) {
                inside = (start..end).contains(&at);
            } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
                return flags.split(' ').any(|flag| flag == "ac");
            }
        }
        panic!("no mapping at {at:#x}");
    };
    assert!(counts(&Memory::new(PAGE, PAGE).unwrap()));
    assert!(!counts(&Memory::sparse(PAGE, PAGE).unwrap()));
}
