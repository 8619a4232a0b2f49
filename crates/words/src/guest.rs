//! What a guest's balloon driver reports of its guest, as text.

use plimsoll_protocol::control::GuestFacts;

/// The guest's memory and its use.
pub fn memory(guest: &GuestFacts) -> String {
    format!(
        "{} total, {} free, {} available, {} cache",
        guest.total, guest.free, guest.available, guest.cache
    )
}

/// The faults, stalls and swapping of the guest since it booted.
pub fn faults(guest: &GuestFacts) -> String {
    let mut text = format!("{} major, {} OOM kills", guest.major_faults, guest.oom_kills);
    if let Some(stalls) = guest.alloc_stalls {
        text += &format!(", {stalls} stalled allocations");
    }
    if let (Some(scanned), Some(reclaimed)) = (guest.direct_scans, guest.direct_reclaims) {
        text += &format!(", {reclaimed} of {scanned} scanned reclaimed directly");
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
        assert_eq!(faults(&old), "3 major, 0 OOM kills");
        let new = GuestFacts {
            swap_in: Some(Bytes::mib(1)),
            swap_out: Some(Bytes::mib(2)),
            alloc_stalls: Some(7),
            direct_scans: Some(Bytes::mib(4)),
            direct_reclaims: Some(Bytes::mib(3)),
            ..old
        };
        assert_eq!(
            faults(&new),
            "3 major, 0 OOM kills, 7 stalled allocations, 3MiB of 4MiB scanned reclaimed directly, \
             1MiB swapped in, 2MiB out"
        );
    }
}
