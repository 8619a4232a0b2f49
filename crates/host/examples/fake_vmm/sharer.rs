use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use plimsoll_protocol::control::{Facts, FromVmm, ToVmm};
use plimsoll_protocol::sharing::{DomainId, Found, SharingKind};
use plimsoll_units::{DigestKey, FrameNo, PAGE_SIZE, PageDigest, PageNo, Pages};

/// Pages that all sharers have with the same content.
const PAGES: u32 = 32;

type Page = [u8; 4096];

/// An honest VMM's part in page sharing: it comes to hold a frame for each of its pages, and reads
/// its frames again and again. Its facts say how many it holds, and how often one held other
/// content.
#[derive(Default)]
pub(crate) struct Sharer {
    domain: Option<Domain>,
    held: BTreeMap<PageNo, FrameNo>,
    /// The pages of the question or offer under way.
    asked: Vec<PageNo>,
    id: u32,
}

struct Domain {
    id: DomainId,
    key: DigestKey,
    frames: File,
    window: File,
}

/// What a page of every sharer holds.
fn content(page: PageNo) -> Page {
    let mut content = [0x5a; 4096];
    content[..4].copy_from_slice(&page.0.to_le_bytes());
    content
}

/// The digests of all pages that sharers have.
pub(crate) fn all_digests(key: &DigestKey) -> Vec<PageDigest> {
    (0..PAGES).map(|page| key.digest(&content(PageNo(page)))).collect()
}

impl Domain {
    fn digests(&self, pages: &[PageNo]) -> Vec<(PageNo, PageDigest)> {
        pages.iter().map(|page| (*page, self.key.digest(&content(*page)))).collect()
    }
}

impl Sharer {
    /// Takes part in the domain that it was told.
    pub(crate) fn join(&mut self, kind: SharingKind, fds: Vec<OwnedFd>) {
        let files: Result<[File; 2], _> = fds.into_iter().map(File::from).collect::<Vec<_>>().try_into();
        if let (SharingKind::Frames { domain: id, key, .. }, Ok([frames, window])) = (kind, files) {
            self.domain = Some(Domain { id, key, frames, window });
        }
    }

    /// Takes an answer. Returns what it says next.
    pub(crate) fn hear(&mut self, message: ToVmm, facts: &mut Facts) -> Option<FromVmm> {
        match message {
            ToVmm::Share { pages, .. } => self.held.extend(pages),
            ToVmm::Offered { frames, .. } => {
                let offered = std::mem::take(&mut self.asked).into_iter().zip(frames);
                self.held.extend(offered.filter_map(|(page, frame)| Some((page, frame?))));
            }
            ToVmm::Found { found, .. } => {
                let found: Vec<_> = std::mem::take(&mut self.asked).into_iter().zip(found).collect();
                self.held.extend(found.iter().filter_map(|(page, found)| match found {
                    Found::Frame(frame) => Some((*page, *frame)),
                    _ => None,
                }));
                let wanted = found.iter().filter(|(_, found)| *found == Found::Wanted);
                return self.offer(wanted.map(|(page, _)| *page).collect(), facts);
            }
            _ => {}
        }
        None
    }

    fn offer(&mut self, pages: Vec<PageNo>, facts: &mut Facts) -> Option<FromVmm> {
        let domain = self.domain.as_ref().filter(|_| !pages.is_empty())?;
        for (at, page) in (0..).zip(&pages) {
            domain.window.write_all_at(&content(*page), at * PAGE_SIZE).unwrap();
        }
        facts.grant -= Pages(pages.len() as u64);
        self.id += 1;
        let offer = FromVmm::Offer { domain: domain.id, id: self.id, pages: domain.digests(&pages) };
        self.asked = pages;
        Some(offer)
    }

    /// Reads what it holds. Returns a question about what it does not hold, unless one is under
    /// way.
    pub(crate) fn look(&mut self, facts: &mut Facts) -> Option<FromVmm> {
        let domain = self.domain.as_ref()?;
        for (page, frame) in &self.held {
            let mut found = [0; 4096];
            let read = domain.frames.read_exact_at(&mut found, frame.offset());
            facts.mismatched += u64::from(read.is_err() || found != content(*page));
        }
        facts.shared = Pages(self.held.len() as u64);
        let missing: Vec<_> = (0..PAGES).map(PageNo).filter(|page| !self.held.contains_key(page)).collect();
        if missing.is_empty() || !self.asked.is_empty() {
            return None;
        }
        self.id += 1;
        let question = FromVmm::LookUp { domain: domain.id, id: self.id, pages: domain.digests(&missing) };
        self.asked = missing;
        Some(question)
    }
}
