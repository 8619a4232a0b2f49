use plimsoll_pmap::PpnRange;
use plimsoll_units::{PAGE_SIZE, Pages, Ppn};

/// The pages that lie in `len` bytes from `address` on as a whole, if there are any.
pub(crate) fn whole_pages(address: u64, len: u64) -> Option<PpnRange> {
    let first = address.div_ceil(PAGE_SIZE);
    let end = address.saturating_add(len) / PAGE_SIZE;
    (first < end).then(|| PpnRange::new(Ppn(first), Pages(end - first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_that_lie_within_count() {
        let pages = |first, pages| Some(PpnRange::new(Ppn(first), Pages(pages)));
        assert_eq!(whole_pages(0, 4096), pages(0, 1));
        assert_eq!(whole_pages(1, 8191), pages(1, 1));
        assert_eq!(whole_pages(4095, 8194), pages(1, 2));
        assert_eq!(whole_pages(4095, 4097), pages(1, 1));
        assert_eq!(whole_pages(1, 8190), None);
        assert_eq!(whole_pages(0, 0), None);
        assert_eq!(whole_pages(u64::MAX, u64::MAX), None);
    }
}
