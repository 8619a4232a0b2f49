//! The daemon's part in a thread for each VM, at the other end of a socket as in earnest.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use anyhow::{Context, Result};
use plimsoll_pmap::{FramePool, FrameSource, MOST_OFFERED, Pmap};
use plimsoll_protocol::control::{FromVmm, ToVmm};
use plimsoll_protocol::sharing::{DomainId, Found, MAX_BATCH};
use plimsoll_protocol::wire::Wire;
use plimsoll_sharing::{Domain, MemberId, Stats, Window};
use plimsoll_units::{DigestKey, FrameNo, PageDigest, PageNo, Pages, ReturnReason};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

use crate::bench::memory::processor::{self, Place};

/// There is one domain.
const DOMAIN: DomainId = DomainId(0);

/// The daemon's part: one sharing domain, and its ends of the VMs' sockets.
pub(crate) struct Host {
    domain: Mutex<Domain>,
    members: Mutex<Vec<Arc<Wire>>>,
    limit: Pages,
}

/// The VMM's part.
pub(crate) struct Member {
    wire: Wire,
    /// What it offers is copied there.
    window: MmapRegion,
    key: DigestKey,
    /// Answers come to one question at a time.
    asking: Mutex<u32>,
    notices: Mutex<Vec<(PageNo, FrameNo)>>,
    pmap: OnceLock<Weak<Pmap>>,
}

impl Host {
    /// A domain for `pages` pages.
    pub(crate) fn new(pages: Pages) -> Result<Arc<Self>> {
        let domain = Mutex::new(Domain::new(pages).context("making a sharing domain")?);
        Ok(Arc::new(Self { domain, members: Mutex::default(), limit: pages }))
    }

    /// Lets a VM take part.
    pub(crate) fn join(self: &Arc<Self>, pmap: &Arc<Pmap>) -> Result<Arc<Member>> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .context("making a pair of sockets")?;
        let shown = Window::new(MOST_OFFERED).context("making a window")?;
        let window = FileOffset::new(File::from(shown.for_member()?), 0);
        let window = MmapRegion::from_file(window, MOST_OFFERED * 4096).context("mapping a window")?;
        let wire = Arc::new(Wire::new(ours));
        let mut members = lock(&self.members);
        let id = MemberId(u32::try_from(members.len())?);
        members.push(Arc::clone(&wire));
        drop(members);
        let (fd, key) = {
            let mut domain = lock(&self.domain);
            domain.join(id, pmap.stats().size).context("joining the sharing domain")?;
            (domain.pool().context("opening the frames")?, domain.digest_key())
        };
        let host = Arc::clone(self);
        std::thread::spawn(move || {
            processor::stay(Place::Elsewhere);
            // Until the VM has closed its end.
            while let Ok((message, _)) = wire.receive() {
                if host.answer(id, &wire, &shown, message).is_none() {
                    return;
                }
            }
        });
        let member = Arc::new(Member {
            wire: Wire::new(theirs),
            window,
            key,
            asking: Mutex::default(),
            notices: Mutex::default(),
            pmap: OnceLock::from(Arc::downgrade(pmap)),
        });
        let source: Arc<dyn FrameSource> = member.clone();
        pmap.join_frames(FramePool { fd, frames: self.limit }, source).context("mapping the frames")?;
        Ok(member)
    }

    /// Does what a VMM asks for; `None` where it does not listen any more.
    fn answer(&self, id: MemberId, wire: &Wire, window: &Window, message: FromVmm) -> Option<()> {
        match message {
            FromVmm::LookUp { id: number, pages, .. } => {
                let found = lock(&self.domain).look_up(id, &pages).into_iter().map(in_words).collect();
                wire.send(&ToVmm::Found { id: number, found }, &[]).ok()
            }
            FromVmm::Offer { id: number, pages, .. } => {
                let mut shown = window.shown();
                let offered =
                    lock(&self.domain).offer(id, &pages, |i, page| page.copy_from_slice(shown.page(i)));
                let back = Pages(pages.len() as u64).saturating_sub(offered.created);
                if back > Pages::ZERO {
                    wire.send(&ToVmm::Grant(back), &[]).ok()?;
                }
                wire.send(&ToVmm::Offered { id: number, frames: offered.frames }, &[]).ok()?;
                let members = lock(&self.members).clone();
                for of_member in offered.notices.chunk_by(|(a, ..), (b, ..)| a == b) {
                    let member = members.get(usize::try_from(of_member[0].0.0).ok()?)?;
                    let pages = of_member.iter().map(|&(_, page, frame)| (page, frame)).collect();
                    member.send(&ToVmm::Share { domain: DOMAIN, pages }, &[]).ok()?;
                }
                Some(())
            }
            FromVmm::GiveBack { pages, mismatched, .. } => {
                lock(&self.domain).give_back(id, &pages, ReturnReason::of(mismatched));
                Some(())
            }
            _ => Some(()),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        lock(&self.domain).stats()
    }
}

impl Member {
    /// Passes on what has come unasked.
    pub(crate) fn deliver(&self, pmap: &Pmap) -> Result<()> {
        let asking = lock(&self.asking);
        let mut fds = [PollFd::new(&self.wire, PollFlags::IN)];
        while poll(&mut fds, Some(&Timespec::default())).context("polling a socket")? > 0 {
            let (message, _) = self.wire.receive().context("reading what the daemon says")?;
            self.take(message);
        }
        drop(asking);
        let notices = std::mem::take(&mut *lock(&self.notices));
        notices.chunks(MAX_BATCH).for_each(|notices| pmap.share(notices));
        Ok(())
    }

    fn take(&self, message: ToVmm) {
        match message {
            ToVmm::Grant(pages) => {
                if let Some(pmap) = self.pmap.get().and_then(Weak::upgrade) {
                    pmap.add_grant(pages);
                }
            }
            ToVmm::Share { pages, .. } => lock(&self.notices).extend(pages),
            _ => {}
        }
    }

    /// Asks, and waits for the answer.
    fn ask(&self, question: impl FnOnce(u32) -> FromVmm) -> Option<ToVmm> {
        let mut asking = lock(&self.asking);
        *asking = asking.wrapping_add(1);
        self.wire.send(&question(*asking), &[]).ok()?;
        loop {
            match self.wire.receive().ok()?.0 {
                answer @ (ToVmm::Found { .. } | ToVmm::Offered { .. }) => return Some(answer),
                message => self.take(message),
            }
        }
    }
}

impl FrameSource for Member {
    fn digest(&self, page: &[u8; 4096]) -> PageDigest {
        self.key.digest(page)
    }

    fn look_up(&self, pages: &[(PageNo, PageDigest)]) -> Option<Vec<plimsoll_pmap::Found>> {
        use plimsoll_pmap::Found as Known;
        let of = |found| match found {
            Found::New | Found::Busy => Known::Nothing,
            Found::Frame(frame) => Known::Frame(frame),
            Found::Wanted => Known::Wanted,
        };
        match self.ask(|id| FromVmm::LookUp { domain: DOMAIN, id, pages: pages.to_vec() })? {
            ToVmm::Found { found, .. } => Some(found.into_iter().map(of).collect()),
            _ => None,
        }
    }

    fn offer(&self, pages: &[(PageNo, PageDigest)], content: &[[u8; 4096]]) -> Option<Vec<Option<FrameNo>>> {
        for (i, page) in content.iter().enumerate() {
            self.window.as_volatile_slice().subslice(i * 4096, 4096).ok()?.copy_from(page);
        }
        match self.ask(|id| FromVmm::Offer { domain: DOMAIN, id, pages: pages.to_vec() })? {
            ToVmm::Offered { frames, .. } => Some(frames),
            _ => None,
        }
    }

    fn give_back(&self, pages: &[(PageNo, FrameNo)], reason: ReturnReason) {
        for pages in pages.chunks(MAX_BATCH) {
            let mismatched = reason.is_mismatch();
            let message = FromVmm::GiveBack { domain: DOMAIN, pages: pages.to_vec(), mismatched };
            // A daemon that is gone has no references left.
            self.wire.send(&message, &[]).ok();
        }
    }
}

fn in_words(found: plimsoll_sharing::Found) -> Found {
    use plimsoll_sharing::Found as Known;
    match found {
        Known::New => Found::New,
        Known::Frame(frame) => Found::Frame(frame),
        Known::Wanted => Found::Wanted,
        Known::Busy => Found::Busy,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
