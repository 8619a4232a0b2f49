use plimsoll_bzimage::HEADER;
use plimsoll_pmap::PpnRange;
use plimsoll_units::PAGE_SIZE;

use super::kernel_image::KernelImage;
use super::layout;

const RSDP: usize = 0x70;
const E820_COUNT: usize = 0x1e8;
const LOADER: usize = 0x210;
const INITRD: usize = 0x218;
const CMDLINE_POINTER: usize = 0x228;
const E820: usize = 0x2d0;

/// The boot protocol's number for boot loaders without one of their own.
const LOADER_UNDEFINED: u8 = 0xff;

/// A kind of memory in the map that firmware gives the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ram = 1,
    Reserved = 2,
}

/// The kernel's first page of facts (`boot_params`, Documentation/arch/x86/zero-page.rst). `initrd`
/// is its address and length; both are below 4 GiB.
pub(crate) fn zero_page(kernel: &KernelImage, ram: &[PpnRange], initrd: Option<(u32, u32)>) -> Vec<u8> {
    let mut page = vec![0; layout::PAGE];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    put(HEADER, kernel.setup().header());
    put(LOADER, &[LOADER_UNDEFINED]);
    put(RSDP, &layout::ACPI.to_le_bytes());
    #[expect(clippy::cast_possible_truncation, reason = "a constant below 1 MiB")]
    put(CMDLINE_POINTER, &(layout::CMDLINE as u32).to_le_bytes());
    // Without one both are zero, whatever the file's header says.
    let (address, len) = initrd.unwrap_or_default();
    put(INITRD, &address.to_le_bytes());
    put(INITRD + 4, &len.to_le_bytes());
    let map = memory_map(ram);
    #[expect(clippy::cast_possible_truncation, reason = "four entries")]
    put(E820_COUNT, &[map.len() as u8]);
    for (index, (start, end, kind)) in map.iter().enumerate() {
        let at = E820 + index * 20;
        put(at, &start.to_le_bytes());
        put(at + 8, &(end - start).to_le_bytes());
        put(at + 16, &(*kind as u32).to_le_bytes());
    }
    page
}

fn memory_map(ram: &[PpnRange]) -> Vec<(u64, u64, Kind)> {
    let mut map = vec![
        (0, layout::CONVENTIONAL_END, Kind::Ram),
        (layout::CONVENTIONAL_END, layout::HIMEM, Kind::Reserved),
    ];
    for range in ram {
        let start = range.start.0 * PAGE_SIZE;
        let end = start + range.pages.0 * PAGE_SIZE;
        map.push((start.max(layout::HIMEM), end, Kind::Ram));
    }
    map
}

#[cfg(test)]
mod tests {
    use plimsoll_units::{Bytes, Pages};

    use super::*;
    use crate::boot::kernel_image::tests::{minimal, open};

    #[test]
    fn the_map_is_in_order_and_covers_all_ram_above_1_mib() {
        let ram = layout::ram(Pages::ceil(Bytes(5 << 30)));
        let map = memory_map(&ram);
        for pair in map.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{map:x?}");
        }
        let high: u64 = map[2..].iter().map(|(start, end, _)| end - start).sum();
        assert_eq!(high, (5 << 30) - layout::HIMEM);
    }

    #[test]
    fn a_header_that_names_an_initrd_makes_none() {
        let mut kernel = minimal();
        kernel[INITRD..INITRD + 8].fill(6);
        let page = zero_page(&open(&kernel).unwrap(), &layout::ram(Pages::ceil(Bytes::mib(64))), None);
        assert_eq!(page[INITRD..INITRD + 8], [0; 8]);
    }

    #[test]
    fn the_kernel_finds_its_header_command_line_and_initrd() {
        let kernel = open(&minimal()).unwrap();
        let page = zero_page(&kernel, &layout::ram(Pages::ceil(Bytes::mib(64))), Some((0x300_0000, 77)));
        assert_eq!(&page[0x202..0x206], b"HdrS");
        assert_eq!(page[LOADER], 0xff);
        assert_eq!(page[INITRD + 4], 77);
        assert_eq!(page[E820_COUNT], 3);
    }
}
