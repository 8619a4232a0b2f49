//! The memory that the VM holds, by `mmap` and `madvise`.

use plimsoll_units::{Bytes, PAGE_SIZE, Pages};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

/// Memory that is resident up to a page, and not beyond.
#[derive(Default)]
pub(crate) struct Ram {
    pub(crate) address: usize,
    pub(crate) size: Pages,
}

impl Ram {
    pub(crate) fn new(size: Pages) -> Self {
        let len = usize::try_from(size.bytes().0).unwrap();
        // SAFETY: a new mapping touches nothing that exists.
        let address = unsafe {
            mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        };
        let address = address.unwrap();
        for advice in [Advice::LinuxDontFork, Advice::LinuxNoHugepage] {
            // SAFETY: the mapping is this long, and the advice changes no content.
            unsafe { madvise(address, len, advice) }.unwrap();
        }
        Self { address: address as usize, size }
    }

    pub(crate) fn touch(&self, from: Pages, to: Pages) {
        for page in from.0..to.0 {
            let address = self.address + usize::try_from(Bytes(page * PAGE_SIZE).0).unwrap();
            // SAFETY: `to` is at most the size of the mapping, which stays for the life of the
            // process.
            unsafe { std::ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(1) };
        }
    }

    pub(crate) fn release(&self, from: Pages, to: Pages) {
        let address = self.address + usize::try_from(from.bytes().0).unwrap();
        let len = usize::try_from((to - from).bytes().0).unwrap();
        let address = std::ptr::with_exposed_provenance_mut(address);
        // SAFETY: the range lies in the mapping, and nothing refers to its content.
        unsafe { madvise(address, len, Advice::LinuxDontNeed) }.unwrap();
    }
}
