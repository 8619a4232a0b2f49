//! Packing of single pages: LZ4 blocks.

use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};

use crate::address::PAGE;

/// A page is worth packing if it shrinks to this many bytes: half. Above that, the saving does not
/// pay for time and bookkeeping, and the page would take the place of two better ones.
pub(crate) const MOST_PACKED: usize = PAGE / 2;

/// What LZ4 may need for a page of noise.
const SCRATCH: usize = 4608;
const _: () = assert!(SCRATCH >= get_maximum_output_size(PAGE));

/// Packs `page` into `out` and returns how many bytes that took. `None` where it does not shrink to
/// half.
pub(crate) fn pack(page: &[u8; PAGE], out: &mut [u8; MOST_PACKED]) -> Option<usize> {
    // The packer refuses less room than the worst page needs.
    let mut scratch = [0; SCRATCH];
    let len = compress_into(page, &mut scratch).ok()?;
    out.get_mut(..len)?.copy_from_slice(&scratch[..len]);
    Some(len)
}

/// Unpacks what [`pack`] made.
pub(super) fn unpack(packed: &[u8], page: &mut [u8; PAGE]) {
    // Only this process writes packed bytes, so only a bug can make this fail. Going on with half a
    // page would hand the guest another's content.
    let len = decompress_into(packed, page).expect("what pack made can be unpacked");
    assert_eq!(len, PAGE, "what pack made is a page");
}
