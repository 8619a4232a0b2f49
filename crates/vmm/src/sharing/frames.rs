use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, Weak};

use anyhow::Result;
use plimsoll_pmap::{Found, FrameSource, MOST_OFFERED, Pmap};
use plimsoll_protocol::control::FromVmm;
use plimsoll_protocol::sharing::{self, DomainId, MAX_BATCH, WINDOW};
use plimsoll_sys::lock;
use plimsoll_units::{DigestKey, FrameNo, PageDigest, PageNo, Pages, ReturnReason};

use super::exchange::{Answer, Exchange, NoAnswer};
use super::window::Window;

const _: () = assert!(MOST_OFFERED <= WINDOW, "what is offered at once fits the window");

/// A sharing domain, as the pmap knows it.
pub(super) struct DomainFrames {
    domain: DomainId,
    exchange: Arc<Exchange>,
    window: Mutex<Window>,
    /// What the daemon's digests are made with.
    key: Mutex<DigestKey>,
    /// The pmap whose source of frames this is.
    pmap: Weak<Pmap>,
}

impl DomainFrames {
    /// Makes a source that makes digests with `key` and offers content in `window`.
    ///
    /// # Errors
    /// The window cannot be mapped.
    pub(super) fn new(
        domain: DomainId,
        key: DigestKey,
        window: OwnedFd,
        exchange: &Arc<Exchange>,
        pmap: &Arc<Pmap>,
    ) -> Result<Self> {
        let window = Mutex::new(Window::new(window)?);
        let (exchange, pmap) = (Arc::clone(exchange), Arc::downgrade(pmap));
        Ok(Self { domain, exchange, window, key: Mutex::new(key), pmap })
    }

    /// Replaces key and window by those of a new daemon. All pages are to be looked at anew before
    /// the next request.
    ///
    /// # Errors
    /// The window cannot be mapped.
    pub(super) fn renew(&self, key: DigestKey, window: OwnedFd) -> Result<()> {
        *lock(&self.window) = Window::new(window)?;
        *lock(&self.key) = key;
        Ok(())
    }

    fn ask_for(&self, pages: &[(PageNo, PageDigest)]) -> Option<Vec<Found>> {
        let slot = self.exchange.request_slot(self.domain)?;
        let message = FromVmm::LookUp { domain: self.domain, id: slot.id, pages: pages.to_vec() };
        let Ok(Answer::Found(found)) = slot.ask(message, numbers(pages)) else { return None };
        let found = found.into_iter().map(|found| match found {
            sharing::Found::New | sharing::Found::Busy => Found::Nothing,
            sharing::Found::Frame(frame) => Found::Frame(frame),
            sharing::Found::Wanted => Found::Wanted,
        });
        Some(found.collect())
    }

    fn try_offer(
        &self,
        pages: &[(PageNo, PageDigest)],
        content: &[[u8; 4096]],
    ) -> Result<Vec<Option<FrameNo>>, NoAnswer> {
        let slot = self.exchange.request_slot(self.domain).ok_or(NoAnswer::Unasked)?;
        // No other thread writes to the window while this one has the request slot.
        lock(&self.window).write(content);
        let message = FromVmm::Offer { domain: self.domain, id: slot.id, pages: pages.to_vec() };
        match slot.ask(message, numbers(pages))? {
            Answer::Offered(frames) => Ok(frames),
            Answer::Found(_) => Err(NoAnswer::Lost),
        }
    }
}

fn numbers(pages: &[(PageNo, PageDigest)]) -> Vec<PageNo> {
    pages.iter().map(|(page, _)| *page).collect()
}

impl FrameSource for DomainFrames {
    fn digest(&self, page: &[u8; 4096]) -> PageDigest {
        let key = *lock(&self.key);
        key.digest(page)
    }

    fn look_up(&self, pages: &[(PageNo, PageDigest)]) -> Option<Vec<Found>> {
        let mut found = Vec::with_capacity(pages.len());
        for batch in pages.chunks(MAX_BATCH) {
            match self.ask_for(batch) {
                Some(more) => found.extend(more),
                None if found.is_empty() => return None,
                // References of earlier batches are held, and must not be forgotten.
                None => found.extend(batch.iter().map(|_| Found::Nothing)),
            }
        }
        Some(found)
    }

    fn offer(&self, pages: &[(PageNo, PageDigest)], content: &[[u8; 4096]]) -> Option<Vec<Option<FrameNo>>> {
        match self.try_offer(pages, content) {
            Ok(frames) => Some(frames),
            // The daemon that gets the offer, or its successor, counts with the lowered grant.
            Err(NoAnswer::Lost) => None,
            Err(NoAnswer::Unasked) => {
                if let Some(pmap) = self.pmap.upgrade() {
                    pmap.add_grant(Pages(pages.len() as u64));
                }
                None
            }
        }
    }

    fn give_back(&self, pages: &[(PageNo, FrameNo)], reason: ReturnReason) {
        self.exchange.give_back(self.domain, pages, reason);
    }
}
