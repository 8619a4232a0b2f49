use plimsoll_units::{SLOTS, Slot};

/// Most samples at a time. Each large chunk needs a place of 2 MiB of address space, 2 GiB in all,
/// and up to three mappings of the 65 530 that a process may have by default. More would gain
/// little: 1000 samples are off by 1.6 % of memory at worst.
pub const MAX_SAMPLES: usize = 1000;

/// Most pages at a time that are watched inside large chunks.
pub(crate) const MAX_INSIDE: usize = 64;

/// Pages right behind guest RAM that are no place. A moved page's mapping may look to the kernel
/// like the continuation of the mapping before it, and the kernel joins the two and disarms both.
/// That one must not be guest RAM: a missing page of it would be served zeros by the kernel.
const GAP: usize = 1;
/// Places for single pages, in chunks, with the gap; the places for chunks follow.
const PAGE_PLACES: usize = (GAP + MAX_SAMPLES + MAX_INSIDE).div_ceil(SLOTS as usize);
/// All places, in chunks.
pub(crate) const SPARE_CHUNKS: usize = PAGE_PLACES + MAX_SAMPLES;

/// A place for memory that is set aside, in pages from the end of guest RAM on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spare(u32);

/// What a place is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A sampled chunk.
    Chunk,
    /// A sampled page of a small chunk.
    Page,
    /// A page of a chunk that is probed.
    Inside,
}

impl Spare {
    /// The place of the page that is the `index`th among the samples.
    pub(crate) fn of_page(index: usize) -> Self {
        Self::new(GAP + index)
    }

    /// The place of the page that is the `index`th of those inside probed chunks.
    pub(crate) fn of_inside(index: usize) -> Self {
        Self::new(GAP + MAX_SAMPLES + index)
    }

    /// What it is for.
    pub(crate) fn kind(self) -> Kind {
        match self.index() {
            page if page < GAP + MAX_SAMPLES => Kind::Page,
            page if page < PAGE_PLACES * usize::from(SLOTS) => Kind::Inside,
            _ => Kind::Chunk,
        }
    }

    /// The place of the chunk that is the `index`th among the samples.
    pub(crate) fn of_chunk(index: usize) -> Self {
        Self::new((PAGE_PLACES + index) * usize::from(SLOTS))
    }

    #[expect(clippy::cast_possible_truncation, reason = "some 500 000 pages at most")]
    fn new(page: usize) -> Self {
        assert!(page < SPARE_CHUNKS * usize::from(SLOTS), "a place behind guest RAM");
        Self(page as u32)
    }

    /// How many chunks behind guest RAM reach to the end of the place's first page.
    pub(crate) fn chunks(self) -> u32 {
        self.0 / u32::from(SLOTS) + 1
    }

    /// How many pages behind guest RAM the place begins.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }

    /// The place as a chunk behind guest RAM and a page of it.
    #[expect(clippy::cast_possible_truncation, reason = "a page of a chunk")]
    pub(crate) fn place(self) -> (usize, Slot) {
        ((self.0 / u32::from(SLOTS)) as usize, (self.0 % u32::from(SLOTS)) as Slot)
    }
}
