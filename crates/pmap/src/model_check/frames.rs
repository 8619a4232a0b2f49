//! The part of the model's daemon that handles frames, and other VMs of the same sharing domain. It
//! knows frames, or makes them, names wrong ones, does not answer, and overwrites a frame as soon
//! as it has no references.

use std::collections::BTreeMap;
use std::fs::File;

use plimsoll_units::{DigestKey, FrameNo, PageDigest, PageNo, Pages, ReturnReason};
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

use super::host::Host;
use super::kernel::kernel;
use crate::address::PAGE;
use crate::pmap::Pmap;
use crate::sync::lock;
use crate::{Found, FramePool, FrameSource};

/// Most frames: many more than pages, so that a frame may be named that does not exist.
const FRAMES: u64 = 64;
/// What digests are made with.
const KEY: DigestKey = DigestKey::new([1; DigestKey::LEN]);

/// See the module's documentation.
pub(super) struct Frames {
    host: Arc<Host>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    frames: BTreeMap<FrameNo, Known>,
    /// To be used again, the last one first.
    free: Vec<FrameNo>,
    made: u32,
}

struct Known {
    digest: PageDigest,
    /// Pages of the VM that have it, or are to have it.
    pages: Vec<PageNo>,
    /// Other VMs have it.
    elsewhere: bool,
}

impl Frames {
    pub(super) fn new(host: &Arc<Host>) -> Arc<Self> {
        Arc::new(Self { host: host.clone(), state: Mutex::default() })
    }

    pub(super) fn join(self: &Arc<Self>, pmap: &Pmap) {
        let fd = File::open("/dev/null").unwrap().into();
        pmap.join_frames(FramePool { fd, frames: Pages(FRAMES) }, self.clone()).unwrap();
    }

    /// Names a frame for a page whose content it is said to be, rightly or wrongly.
    pub(super) fn name_one_for(&self, page: PageNo) -> Option<(PageNo, FrameNo)> {
        let mut state = lock(&self.state);
        let nth = thread_rng().gen_range(0..state.frames.len().max(1));
        let (&frame, known) = state.frames.iter_mut().nth(nth)?;
        known.pages.push(page);
        Some((page, frame))
    }

    /// How many pages have frames.
    pub(super) fn references(&self) -> usize {
        lock(&self.state).frames.values().map(|known| known.pages.len()).sum()
    }

    /// Frees frames without references, and overwrites them: a page that still maps one shows other
    /// content.
    fn free(&self, state: &mut State) {
        let gone = state.frames.extract_if(.., |_, known| known.pages.is_empty() && !known.elsewhere);
        for (frame, _) in gone {
            kernel().write_shared(frame, &[0xEE; PAGE]);
            state.free.push(frame);
            self.host.regain();
        }
    }
}

impl FrameSource for Frames {
    fn digest(&self, page: &[u8; PAGE]) -> PageDigest {
        KEY.digest(page)
    }

    fn look_up(&self, pages: &[(PageNo, PageDigest)]) -> Option<Vec<Found>> {
        thread::yield_now();
        if thread_rng().gen_ratio(1, 16) {
            return None;
        }
        let found = |&(page, digest): &(PageNo, PageDigest)| {
            let mut state = lock(&self.state);
            // Other VMs give frames up as they like.
            if let Some(known) = state.frames.values_mut().find(|known| known.elsewhere) {
                known.elsewhere = thread_rng().gen_bool(0.75);
            }
            self.free(&mut state);
            let wrong = thread_rng().gen_ratio(1, 8);
            let known = state.frames.iter_mut().find(|(_, known)| known.digest == digest || wrong);
            match known {
                Some((&frame, known)) => {
                    known.pages.push(page);
                    Found::Frame(frame)
                }
                None if thread_rng().gen_bool(0.75) => Found::Wanted,
                None => Found::Nothing,
            }
        };
        let found = pages.iter().map(found).collect();
        thread::yield_now();
        Some(found)
    }

    fn offer(&self, pages: &[(PageNo, PageDigest)], content: &[[u8; PAGE]]) -> Option<Vec<Option<FrameNo>>> {
        thread::yield_now();
        let make = |(&(page, digest), content): (&(PageNo, PageDigest), &[u8; PAGE])| {
            assert_eq!(KEY.digest(content), digest, "what is offered is what was asked for");
            if thread_rng().gen_ratio(1, 8) {
                return None;
            }
            let mut state = lock(&self.state);
            let next = FrameNo(state.made);
            let frame = state.free.pop().unwrap_or(next);
            state.made += u32::from(frame == next);
            kernel().write_shared(frame, content);
            let known = Known { digest, pages: vec![page], elsewhere: thread_rng().gen_bool(0.5) };
            state.frames.insert(frame, known);
            Some(frame)
        };
        let frames: Vec<_> = pages.iter().zip(content).map(make).collect();
        let made = frames.iter().flatten().count();
        self.host.paid(Pages(made as u64), Pages((frames.len() - made) as u64));
        thread::yield_now();
        Some(frames)
    }

    fn give_back(&self, pages: &[(PageNo, FrameNo)], _reason: ReturnReason) {
        let mut state = lock(&self.state);
        for (page, frame) in pages {
            let known = state.frames.get_mut(frame).expect("a frame that there is");
            let at = known.pages.iter().position(|of| of == page).expect("a frame that the page has");
            known.pages.swap_remove(at);
        }
        self.free(&mut state);
    }
}
