use std::ops::Deref;
use std::sync::Arc;

use plimsoll_units::PAGE_SIZE;
use vm_memory::{
    Address, GuestAddress, GuestAddressSpace, GuestMemoryError, GuestMemoryRegion, GuestMemoryRegionBytes,
    GuestRegionCollection, GuestUsize, MemoryRegionAddress, VolatileSlice,
};

use super::mmap::Mapping;
use crate::address::{Layout, Placed};

/// Guest RAM as `vm-memory` sees it, for access by the CPU from any thread of the VMM.
///
/// Such an access faults as a vCPU's does: it may wait for a grant, and needs no lock. Memory that
/// the kernel reads or writes asynchronously (O_DIRECT, io_uring) must be pinned instead, see
/// [`Pmap::pin`](crate::Pmap::pin). The thread that serves faults must never use this.
///
/// Cheap to clone. It dereferences to a [`vm_memory::GuestMemoryBackend`], and is itself the
/// `Deref<Target: GuestMemory> + Clone` that `virtio-queue` asks for.
#[derive(Clone, Debug)]
pub struct GuestRam(Arc<GuestRegionCollection<RamRegion>>);

/// One region of guest RAM, contiguous for the guest and for the host.
#[derive(Debug)]
pub struct RamRegion {
    mapping: Arc<Mapping>,
    guest: GuestAddress,
    offset: usize,
    len: usize,
}

impl GuestRam {
    pub(crate) fn new(layout: &Layout, mapping: &Arc<Mapping>) -> Self {
        let region = |placed: &Placed| RamRegion {
            mapping: Arc::clone(mapping),
            guest: GuestAddress(placed.range.start.0 * PAGE_SIZE),
            offset: usize::try_from(placed.first * PAGE_SIZE).expect("an offset into the mapping"),
            len: usize::try_from(placed.range.pages.0 * PAGE_SIZE).expect("a length within the mapping"),
        };
        let regions = layout.regions().iter().map(region).collect();
        let collection = GuestRegionCollection::from_regions(regions);
        Self(Arc::new(collection.expect("a layout has regions, in order and apart")))
    }
}

impl RamRegion {
    /// The host address of its first byte, for a KVM memory slot. Valid as long as the
    /// [`Pmap`](crate::Pmap) or any [`GuestRam`] of it lives.
    pub fn host(&self) -> *mut u8 {
        self.mapping.host(self.offset)
    }
}

impl Deref for GuestRam {
    type Target = GuestRegionCollection<RamRegion>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl GuestAddressSpace for GuestRam {
    type M = GuestRegionCollection<RamRegion>;
    type T = Self;

    fn memory(&self) -> Self {
        self.clone()
    }
}

impl GuestMemoryRegion for RamRegion {
    type B = ();

    fn len(&self) -> GuestUsize {
        self.len as u64
    }

    fn start_addr(&self) -> GuestAddress {
        self.guest
    }

    fn bitmap(&self) {}

    fn get_host_address(&self, address: MemoryRegionAddress) -> Result<*mut u8, GuestMemoryError> {
        self.get_slice(address, 1).map(|slice| slice.ptr_guard_mut().as_ptr())
    }

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> Result<VolatileSlice<'_>, GuestMemoryError> {
        let start = usize::try_from(offset.raw_value()).ok();
        start
            .filter(|start| start.checked_add(count).is_some_and(|end| end <= self.len))
            .and_then(|start| self.mapping.slice(self.offset + start, count))
            .ok_or(GuestMemoryError::InvalidBackendAddress)
    }
}

impl GuestMemoryRegionBytes for RamRegion {}
