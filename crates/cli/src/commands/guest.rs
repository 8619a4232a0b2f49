//! The text about what a guest's balloon driver says of its guest.

use plimsoll_protocol::control::GuestFacts;

/// How much memory the guest sees, and what it uses it for.
pub(super) fn memory(guest: &GuestFacts) -> String {
    format!(
        "{} in all, {} free, {} available, {} cache",
        guest.total, guest.free, guest.available, guest.cache
    )
}

/// What its own lack of memory has cost the guest since it booted.
pub(super) fn pain(guest: &GuestFacts) -> String {
    let mut text = format!("{} major faults, {} OOM kills", guest.major_faults, guest.oom_kills);
    if let Some(stalls) = guest.alloc_stalls {
        text += &format!(", {stalls} allocations stalled");
    }
    if let (Some(scanned), Some(reclaimed)) = (guest.direct_scans, guest.direct_reclaims) {
        text += &format!(", {reclaimed} reclaimed directly of {scanned} scanned");
    }
    if let (Some(read), Some(written)) = (guest.swap_in, guest.swap_out) {
        text += &format!(", {read} swapped in, {written} out");
    }
    text
}

#[cfg(test)]
mod tests {
    use plimsoll_units::Bytes;

    use super::*;

    #[test]
    fn only_what_the_driver_says_is_told() {
        let old = GuestFacts { major_faults: 3, ..GuestFacts::default() };
        assert_eq!(pain(&old), "3 major faults, 0 OOM kills");
        let new = GuestFacts {
            swap_in: Some(Bytes::mib(1)),
            swap_out: Some(Bytes::mib(2)),
            alloc_stalls: Some(7),
            direct_scans: Some(Bytes::mib(4)),
            direct_reclaims: Some(Bytes::mib(3)),
            ..old
        };
        assert_eq!(
            pain(&new),
            "3 major faults, 0 OOM kills, 7 allocations stalled, 3MiB reclaimed directly of 4MiB scanned, \
             1MiB swapped in, 2MiB out"
        );
    }
}
