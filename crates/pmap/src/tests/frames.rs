use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use plimsoll_units::{DigestKey, FrameNo, PAGE_SIZE, PageDigest, PageNo, Pages, ReturnReason};
use rustix::fs::MemfdFlags;

use super::harness::Served;
use crate::sync::lock;
use crate::{Found, FramePool, FrameSource};

/// Most frames of a pool.
const FRAMES: u64 = 1 << 16;
/// What digests are made with.
const KEY: DigestKey = DigestKey::new([1; DigestKey::LEN]);

/// A host with one sharing domain, as simple as can be and without mercy: a frame whose last
/// reference is given back is overwritten at once, and used again first.
pub(crate) struct Frames {
    pool: File,
    state: Mutex<State>,
}

/// Which page of which VM is which frame.
type Holds = HashMap<(usize, PageNo), FrameNo>;

#[derive(Default)]
struct State {
    /// By digest.
    frames: HashMap<PageDigest, FrameNo>,
    hints: HashMap<PageDigest, (usize, PageNo)>,
    held: Holds,
    /// How many there are, the frame's digest, and the member that has paid for it.
    references: HashMap<FrameNo, (u32, PageDigest, usize)>,
    /// What frames had cost that are no more, or were not made.
    refunds: HashMap<usize, u64>,
    free: Vec<FrameNo>,
    made: u32,
    notices: HashMap<usize, Vec<(PageNo, FrameNo)>>,
    wrong: Vec<String>,
    mismatched: u64,
    /// Names a frame for every page, right or wrong.
    lies: bool,
}

/// One VM's access to it.
struct Member {
    host: Arc<Frames>,
    vm: usize,
}

impl Frames {
    pub(crate) fn new() -> Arc<Self> {
        let pool = File::from(rustix::fs::memfd_create("frames", MemfdFlags::CLOEXEC).unwrap());
        pool.set_len(FRAMES * PAGE_SIZE).unwrap();
        Arc::new(Self { pool, state: Mutex::default() })
    }

    pub(crate) fn join(self: &Arc<Self>, vm: usize, served: &Served) {
        let fd = File::open(format!("/proc/self/fd/{}", self.pool.as_raw_fd())).unwrap().into();
        let source = Arc::new(Member { host: Arc::clone(self), vm });
        served.pmap.join_frames(FramePool { fd, frames: Pages(FRAMES) }, source).unwrap();
    }

    /// Has a VM leave, if it can; true where it has left.
    pub(crate) fn leave(self: &Arc<Self>, vm: usize, served: &Served) -> bool {
        let left = served.pmap.leave_frames() == Pages::ZERO;
        if left {
            let notices = lock(&self.state).notices.remove(&vm).unwrap_or_default();
            Member { host: Arc::clone(self), vm }.give_back(&notices, ReturnReason::Unused);
        }
        left
    }

    /// Passes on what a VM is to be told and given.
    pub(crate) fn deliver(&self, vm: usize, served: &Served) {
        let notices = lock(&self.state).notices.remove(&vm).unwrap_or_default();
        served.pmap.share(&notices);
        let refund = lock(&self.state).refunds.remove(&vm).unwrap_or_default();
        served.pmap.add_grant(Pages(refund));
    }

    /// From now on every page is said to be some frame.
    pub(crate) fn lie(&self) {
        lock(&self.state).lies = true;
    }

    pub(crate) fn frames(&self) -> usize {
        lock(&self.state).references.len()
    }

    pub(crate) fn references(&self) -> usize {
        lock(&self.state).held.len()
    }

    pub(crate) fn mismatched(&self) -> u64 {
        lock(&self.state).mismatched
    }

    /// Each reference is one that a VM says it has.
    pub(crate) fn check(&self, vms: &[&Served]) {
        let state = lock(&self.state);
        assert_eq!(state.wrong, Vec::<String>::new());
        let said = vms.iter().enumerate().flat_map(|(vm, served)| {
            served.pmap.references().into_iter().map(move |(page, frame)| ((vm, page), frame))
        });
        let waiting = state
            .notices
            .iter()
            .flat_map(|(&vm, all)| all.iter().map(move |&(page, frame)| ((vm, page), frame)));
        let all: Holds = said.chain(waiting).collect();
        assert_eq!((unlike(&all, &state.held), unlike(&state.held, &all)), (vec![], vec![]));
    }
}

/// What is in `a` and not in `b`.
fn unlike(a: &Holds, b: &Holds) -> Vec<((usize, PageNo), FrameNo)> {
    a.iter().filter(|(page, frame)| b.get(page) != Some(frame)).map(|(&page, &frame)| (page, frame)).collect()
}

impl State {
    fn take(&mut self, vm: usize, page: PageNo, frame: FrameNo) {
        if self.held.insert((vm, page), frame).is_some() {
            self.wrong.push(format!("{page:?} of {vm} has a frame already"));
        }
        self.references.get_mut(&frame).unwrap().0 += 1;
    }
}

impl FrameSource for Member {
    fn digest(&self, page: &[u8; 4096]) -> PageDigest {
        KEY.digest(page)
    }

    fn look_up(&self, pages: &[(PageNo, PageDigest)]) -> Option<Vec<Found>> {
        let mut state = lock(&self.host.state);
        let state = &mut *state;
        let look = |&(page, digest): &(PageNo, PageDigest)| {
            if state.held.contains_key(&(self.vm, page)) {
                return Found::Nothing;
            }
            let any = || state.references.keys().next().copied().filter(|_| state.lies);
            if let Some(frame) = state.frames.get(&digest).copied().or_else(any) {
                state.take(self.vm, page, frame);
                return Found::Frame(frame);
            }
            match state.hints.insert(digest, (self.vm, page)) {
                Some(other) if other != (self.vm, page) => {
                    state.hints.insert(digest, other);
                    Found::Wanted
                }
                _ => Found::Nothing,
            }
        };
        Some(pages.iter().map(look).collect())
    }

    fn offer(&self, pages: &[(PageNo, PageDigest)], content: &[[u8; 4096]]) -> Option<Vec<Option<FrameNo>>> {
        let mut state = lock(&self.host.state);
        let state = &mut *state;
        let make = |(&(page, digest), content): (&(PageNo, PageDigest), &[u8; 4096])| {
            assert_eq!(KEY.digest(content), digest, "the digest of what is offered");
            if state.held.contains_key(&(self.vm, page)) {
                *state.refunds.entry(self.vm).or_default() += 1;
                return None;
            }
            if state.frames.contains_key(&digest) {
                *state.refunds.entry(self.vm).or_default() += 1;
            }
            let frame = *state.frames.entry(digest).or_insert_with(|| {
                state.free.pop().unwrap_or_else(|| {
                    state.made += 1;
                    FrameNo(state.made - 1)
                })
            });
            state.references.entry(frame).or_insert_with(|| {
                self.host.pool.write_all_at(content, u64::from(frame.0) * PAGE_SIZE).unwrap();
                (0, digest, self.vm)
            });
            state.take(self.vm, page, frame);
            if let Some((vm, hinted)) = state.hints.remove(&digest)
                && !state.held.contains_key(&(vm, hinted))
            {
                state.take(vm, hinted, frame);
                state.notices.entry(vm).or_default().push((hinted, frame));
            }
            Some(frame)
        };
        Some(pages.iter().zip(content).map(make).collect())
    }

    fn give_back(&self, pages: &[(PageNo, FrameNo)], reason: ReturnReason) {
        let mut state = lock(&self.host.state);
        let state = &mut *state;
        if reason.is_mismatch() {
            state.mismatched += pages.len() as u64;
        }
        for &(page, frame) in pages {
            if state.held.remove(&(self.vm, page)) != Some(frame) {
                state.wrong.push(format!("{page:?} of {} gives back {frame:?}", self.vm));
                continue;
            }
            let (count, digest, payer) = state.references.get_mut(&frame).unwrap();
            *count -= 1;
            if *count == 0 {
                let (digest, payer) = (*digest, *payer);
                *state.refunds.entry(payer).or_default() += 1;
                state.references.remove(&frame);
                state.frames.remove(&digest);
                state.free.push(frame);
                self.host.pool.write_all_at(&[0xDD; 4096], u64::from(frame.0) * PAGE_SIZE).unwrap();
            }
        }
    }
}
