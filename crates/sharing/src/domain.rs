use std::io;
use std::os::fd::OwnedFd;

use plimsoll_units::{Bytes, DigestKey, FrameNo, PageDigest, PageNo, Pages, ReturnReason};

use crate::bookkeeping::release;
use crate::error::Error;
use crate::frames::Frames;
use crate::holding::{Held, Holding};
use crate::index::Index;
use crate::key::{self, Key, Secret};
use crate::member::{Members, Place};
use crate::pool::{Page, Pool};
use crate::target::{Kind, Target};
use crate::{Found, Freed, GivenBack, MAX_PAGES, MemberId, MemberStats, Stats};

/// VMs that may share pages with each other, what is known of their pages, and the frames that they
/// share.
///
/// A page of a member holds nothing, or is a *hint* (its digest is known, others can find it), or
/// holds a *reference* to one frame. Members report what they did in order. A report that
/// contradicts the account is ignored and counted.
#[derive(Debug)]
pub struct Domain {
    pub(crate) pool: Pool,
    pub(crate) frames: Frames,
    pub(crate) index: Index,
    pub(crate) members: Members,
    pub(crate) secret: Secret,
    /// Makes digests of pages with `digest_key`, which members know.
    pub(crate) digest: Digest,
    pub(crate) digest_key: DigestKey,
    /// After a restart, not all members have reported what they hold: no frame is made or punched.
    pub(crate) recovering: bool,
    /// No frame is made: see [`Domain::close`].
    pub(crate) closed: bool,
    /// Next frame that [`Domain::scrub`] looks at; `None` outside a search.
    pub(crate) scrubbed: Option<FrameNo>,
}

/// The digest of a page under a key. Tests have one by which unequal pages are alike.
type Digest = fn(&DigestKey, &Page) -> PageDigest;

/// Look-ups whose memory is fetched at once. A processor waits for some 10 to 20 accesses at a
/// time; with twice as many it is never idle, and what was fetched first is still in its nearest
/// cache.
const AT_ONCE: usize = 32;

/// A page of a look-up.
#[derive(Clone, Copy, Debug)]
struct LookedUp {
    place: Place,
    key: Key,
    /// What has its digest, as far as the first line shows.
    seen: Option<Target>,
}

/// Pages of members that left which each call clears, besides its own work. So they go also if
/// [`Domain::tidy`] is not called, and no call takes long.
const SWEEP: usize = 1024;
/// The same for [`Domain::tidy`]: about a millisecond.
const TIDY_PAGES: usize = 8 * 1024;
/// Runs of frames given back to the host in one call: some 1 to 2 us each.
const TIDY_RUNS: usize = 512;

impl Domain {
    /// A domain without members, with room for `limit` frames, or [`MAX_PAGES`] if that is less.
    /// Their memory is taken as they are made, and goes back as they are freed.
    pub fn new(limit: Pages) -> Result<Self, Error> {
        let limit = limit.min(MAX_PAGES);
        Self::with_pool(Pool::new(limit)?, limit, DigestKey::digest)
    }

    pub(crate) fn with_pool(pool: Pool, limit: Pages, digest: Digest) -> Result<Self, Error> {
        Ok(Self {
            pool,
            frames: Frames::new(u32::try_from(limit.0.min(MAX_PAGES.0)).expect("2^31 at most")),
            index: Index::new().map_err(Error::Memory)?,
            members: Members::default(),
            secret: Secret::new(),
            digest,
            digest_key: key::digest_key().map_err(Error::Random)?,
            recovering: false,
            closed: false,
            scrubbed: None,
        })
    }

    /// A descriptor of the pool for a member: it can read and map frames, and no more, even if it
    /// opens the descriptor anew, provided that it runs as another user than this process and
    /// without its rights. Frame `n` is at [`FrameNo::offset`].
    pub fn pool(&self) -> io::Result<OwnedFd> {
        self.pool.reader()
    }

    /// Adds `member`, a VM of `size` pages. All pages that it names must be below `size`.
    pub fn join(&mut self, member: MemberId, size: Pages) -> Result<(), Error> {
        self.members.join(member, size)
    }

    /// Removes `member`, whose process has ended or unmapped the pool; it may join again. Its
    /// references and hints are dropped in steps, here and in [`Domain::tidy`], and no member is
    /// notified. Does nothing for a VM that is no member.
    pub fn leave(&mut self, member: MemberId) -> Freed {
        if self.members.leave(member) { self.tidy() } else { Freed::default() }
    }

    /// Makes no new frames from now on, because a process that is no member can still read the
    /// pool. Pages that have a frame are shared as before. A process that was given a descriptor
    /// cannot be made to give it up, so this lasts as long as the process, or for ever.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Makes frames again: only members can read the pool any more.
    pub fn open(&mut self) {
        self.closed = false;
    }

    /// The key that digests of pages are made with. Only members may know it. It is another one
    /// after each start of the daemon.
    pub fn digest_key(&self) -> DigestKey {
        self.digest_key
    }

    /// Looks up pages of `member` by their digests. Returns what was found, in order; see
    /// [`Found`].
    ///
    /// A hint for an earlier content of a page is forgotten.
    pub fn look_up(&mut self, member: MemberId, pages: &[(PageNo, PageDigest)]) -> Vec<Found> {
        self.sweep(SWEEP);
        self.confirm_compared(member);
        let believed =
            self.members.get_mut(member).is_some_and(|range| range.account.trust.looks_up(pages.len()));
        if !believed {
            return vec![Found::Busy; pages.len()];
        }
        let mut answers = Vec::with_capacity(pages.len());
        for pages in pages.chunks(AT_ONCE) {
            let wanted = self.fetch(member, pages);
            let changes = self.index.changes();
            answers.extend(wanted[..pages.len()].iter().map(|wanted| match wanted {
                Some(LookedUp { place, key, seen }) => {
                    // What was seen while fetching still holds, unless an answer before this one
                    // changed the index.
                    let seen = seen.filter(|_| self.index.changes() == changes);
                    let found = seen.or_else(|| self.index.find(*key));
                    self.look_up_one(member, *place, *key, found.map(Target::kind))
                }
                None => Found::Busy,
            }));
        }
        answers
    }

    /// What a look-up of `pages` needs; `None` for a page outside the VM. All memory for it is
    /// being fetched.
    fn fetch(&self, member: MemberId, pages: &[(PageNo, PageDigest)]) -> [Option<LookedUp>; AT_ONCE] {
        let mut wanted = [None; AT_ONCE];
        let Some(range) = self.members.get(member) else { return wanted };
        for ((page, digest), wanted) in pages.iter().zip(&mut wanted) {
            let key = self.secret.key(*digest);
            self.index.prefetch(key.prefix());
            range.prefetch(*page);
            *wanted = range.place(*page).map(|place| LookedUp { place, key, seen: None });
        }
        for wanted in wanted.iter_mut().flatten() {
            wanted.seen = self.index.prefetch_more(wanted.key);
            if let Some(Kind::Frame(frame)) = wanted.seen.map(Target::kind) {
                self.frames.prefetch(frame);
            }
        }
        wanted
    }

    fn look_up_one(&mut self, member: MemberId, place: Place, key: Key, found: Option<Kind>) -> Found {
        let held = self.held(place);
        if matches!(held, Held::Reference(_)) {
            return Found::Busy;
        }
        match found {
            Some(Kind::Frame(frame)) => {
                self.frames.acquire(frame);
                self.refer(place, frame);
                let confirmable = self.frames.maker(frame).is_some_and(|maker| maker != member);
                if confirmable && let Some(range) = self.members.range_of(place) {
                    range.uncompared.push((place, frame));
                }
                Found::Frame(frame)
            }
            Some(Kind::Hint(same)) if same == place => Found::New,
            Some(Kind::Hint(other)) if self.hint_owner(other).is_some() => {
                if held != Held::Nothing {
                    self.forget_hint(place);
                }
                if self.closed { Found::Busy } else { Found::Wanted }
            }
            // The hint's member has left or is not trusted: this page is a better hint.
            Some(Kind::Hint(other)) => {
                self.forget_hint(other);
                self.make_hint(place, key);
                Found::New
            }
            None => {
                self.make_hint(place, key);
                Found::New
            }
        }
    }

    /// Takes back references that `member` names by page and frame, for a `reason`. A member whose
    /// frames are given back with [`ReturnReason::Mismatch`] loses trust.
    ///
    /// A frame without references is freed, and its memory goes back to the host at once.
    pub fn give_back(
        &mut self,
        member: MemberId,
        pages: &[(PageNo, FrameNo)],
        reason: ReturnReason,
    ) -> GivenBack {
        self.sweep(SWEEP);
        let mut result = GivenBack::default();
        let Some(range) = self.members.get_mut(member) else {
            return GivenBack { ignored: pages.len() as u64, ..result };
        };
        let mut ended = Vec::with_capacity(pages.len());
        for (page, frame) in pages {
            match range.place(*page).filter(|place| range.holding(*place).held() == Held::Reference(*frame)) {
                Some(place) => {
                    *range.holding(place) = Holding::NOTHING;
                    range.account.references -= 1;
                    range.account.false_matches += u64::from(reason.is_mismatch());
                    result.accepted += 1;
                    ended.push(*frame);
                }
                None => {
                    range.account.false_returns += 1;
                    result.ignored += 1;
                }
            }
        }
        for frame in ended {
            if reason.is_mismatch() {
                self.mismatch(member, frame);
            }
            release(&mut self.frames, &mut self.index, frame);
        }
        result.freed = self.punch(pages.len());
        result
    }

    /// Does a part of the deferred work, for a millisecond or two: drops references and hints of
    /// members that left, and gives memory of freed frames back to the host. Call it from time to
    /// time, and again soon while there is more.
    pub fn tidy(&mut self) -> Freed {
        self.sweep(TIDY_PAGES);
        self.scrub_on(TIDY_RUNS);
        let frames = self.punch(TIDY_RUNS);
        Freed { frames, more: self.has_deferred_work() }
    }

    /// Whether there is something for [`Domain::tidy`] to do.
    pub fn has_deferred_work(&self) -> bool {
        let postponed = self.frames.lingering() > 0 || self.scrubbed.is_some();
        (postponed && !self.recovering) || self.members.has_vacant()
    }

    /// What the domain has.
    pub fn stats(&self) -> Stats {
        let frames = self.frames.in_use() + self.frames.lingering();
        let references = self.frames.references();
        let ranges = self.members.ranges();
        let bytes = self.index.bytes()
            + self.frames.bytes()
            + ranges.iter().map(|range| range.bytes()).sum::<usize>();
        Stats {
            frames: Pages(frames),
            lingering: Pages(self.frames.lingering()),
            references: Pages(references),
            saved: Pages(references.saturating_sub(frames)),
            hints: Pages(self.members.ranges().iter().map(|range| range.account.hints).sum()),
            index: Bytes(bytes as u64),
            limit: Pages(self.frames.limit().into()),
        }
    }

    /// What `member` has; `None` if it is no member.
    pub fn member(&self, member: MemberId) -> Option<MemberStats> {
        let account = &self.members.get(member)?.account;
        let all = u128::from(self.frames.references());
        let charge = (u128::from(self.frames.in_use()) * u128::from(account.references)).div_ceil(all.max(1));
        Some(MemberStats {
            references: Pages(account.references),
            hints: Pages(account.hints),
            charge: Pages(u64::try_from(charge).unwrap_or(u64::MAX)),
            false_matches: account.false_matches,
            false_offers: account.false_offers,
            false_returns: account.false_returns,
            doubted: account.trust.doubted(),
        })
    }

    /// The members.
    pub fn members(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.members.ids()
    }

    /// Machine memory that the pool takes beyond its frames. If there is any, a process has touched
    /// holes in its mapping of the pool, which fills them with zeros. [`Domain::scrub`] takes that
    /// back.
    pub fn excess(&self) -> io::Result<Pages> {
        let counted = Pages(self.frames.in_use() + self.frames.lingering());
        Ok(self.pool.resident()?.saturating_sub(counted))
    }
}

#[cfg(test)]
mod tests;
