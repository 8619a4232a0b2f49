//! Any file as a guest's kernel, for a fuzzer.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;

use plimsoll_units::{Bytes as Size, PAGE_SIZE, Pages};
use rustix::fs::MemfdFlags;

use super::file::BootFile;
use super::load::BootImage;
use super::{acpi, layout};
use crate::virtio::testing::Guest;

/// The largest guest.
const MOST: Size = Size::mib(64);
/// Where a kernel finds address and length of its initrd, in the zero page.
const INITRD: u64 = layout::ZERO_PAGE + 0x218;
/// What initrds consist of.
const INITRD_BYTE: u8 = 0xa5;

/// Boots the file in `input`, behind a byte each for the guest's size, the initrd's length and the
/// length of the command line. A kernel that is accepted lies in the guest's memory as a whole,
/// apart from its initrd and from what the loader writes.
///
/// # Panics
/// It does not.
pub(crate) fn kernel(input: &[u8]) {
    thread_local! {
        static GUEST: RefCell<Option<Guest>> = const { RefCell::new(None) };
    }
    let Some((&[size, initrd, cmdline], file)) = input.split_first_chunk() else { return };
    let size = Pages::floor(Size::mib(2 * (1 + u64::from(size % 32))));
    let initrd = vec![INITRD_BYTE; usize::from(initrd) * 40];
    let cmdline = "x".repeat(usize::from(cmdline) * 8);
    let initrd_file = (!initrd.is_empty()).then(|| memory_file(&initrd));
    let image =
        BootImage::new(memory_file(file), initrd_file, &cmdline, size, acpi::tables(1, acpi::VirtioBus::Pci));
    let Ok(image) = image else { return };
    let loaded = image.loaded_pages();
    let end = |range: &plimsoll_pmap::PpnRange| (range.start.0 + range.pages.0) * PAGE_SIZE;
    for (index, range) in loaded.iter().enumerate() {
        assert!(range.start.0 * PAGE_SIZE >= layout::HIMEM && end(range) <= size.bytes().0, "{range:?}");
        for other in &loaded[..index] {
            assert!(end(other) <= range.start.0 * PAGE_SIZE, "kernel and initrd lie apart: {loaded:?}");
        }
    }
    GUEST.with_borrow_mut(|guest| {
        let guest = guest.get_or_insert_with(|| Guest::of(layout::ram(Pages::floor(MOST))));
        image.load(guest.ram()).expect("what was accepted fits");
        let sectors = if file[0x1f1] == 0 { 4 } else { usize::from(file[0x1f1]) };
        let payload = &file[(sectors + 1) * 512..];
        assert!(guest.read(image.entry() - 0x200, payload.len()) == payload, "the kernel is there");
        assert_eq!(guest.read(layout::CMDLINE, cmdline.len() + 1), [cmdline.as_bytes(), &[0]].concat());
        let word = |at| u32::from_le_bytes(guest.read(at, 4).try_into().expect("four bytes were read"));
        let (at, length) = (u64::from(word(INITRD)), word(INITRD + 4) as usize);
        assert!(length == initrd.len() && guest.read(at, length) == initrd, "the initrd is there");
    });
}

fn memory_file(bytes: &[u8]) -> Box<dyn BootFile> {
    let file = rustix::fs::memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("a file in memory can be made");
    let mut file = File::from(file);
    file.write_all(bytes).expect("a file in memory can be written");
    Box::new(file)
}
