use std::os::fd::OwnedFd;

use plimsoll_units::{DigestKey, FrameNo, PageNo, Pages};

use crate::error::Error;
use crate::holding::Held;
use crate::pool::Pool;
use crate::target::{Kind, Target};
use crate::{Domain, Freed, MemberId};

impl Domain {
    /// Recovers the domain of an earlier daemon from a descriptor of its pool, as members hold it.
    /// The caller has checked by the inode that it is the file that the earlier daemon made.
    ///
    /// It has no members and no frames at first. Members [join](Domain::join) and report with
    /// [`Domain::hold`] what they refer to; when all have, or are known to be gone,
    /// [`Domain::recovered`] ends this. Until then look-ups find what was reported, but no frame is
    /// made and none is freed: another member may still report it.
    pub fn recover(pool: &OwnedFd) -> Result<Self, Error> {
        let pool = Pool::reopen(pool)?;
        let limit = pool.limit()?;
        let mut domain = Self::with_pool(pool, limit, DigestKey::digest)?;
        domain.recovering = true;
        Ok(domain)
    }

    /// Takes over references of `member` from before the restart. Returns how many were taken. A
    /// frame without content is not taken, nor a second one for the same page, nor any after
    /// recovery has ended.
    ///
    /// A digest of each frame is made when it is first reported, with the new key. That takes about
    /// two microseconds.
    pub fn hold(&mut self, member: MemberId, pages: &[(PageNo, FrameNo)]) -> Pages {
        let held =
            pages.iter().filter(|(page, frame)| self.hold_one(member, *page, *frame).is_some()).count();
        Pages(held as u64)
    }

    fn hold_one(&mut self, member: MemberId, page: PageNo, frame: FrameNo) -> Option<()> {
        let place = self.place(member, page)?;
        let held = self.held(place);
        if !self.recovering || matches!(held, Held::Reference(_)) || frame.0 >= self.frames.limit() {
            return None;
        }
        if self.frames.is_used(frame) {
            self.frames.acquire(frame);
            if self.frames.maker(frame) != Some(member) {
                self.frames.confirm(frame);
            }
        } else {
            self.adopt(frame, member)?;
        }
        self.refer(place, frame);
        Some(())
    }

    /// Takes a frame that exists into the account again, unless it has no content. Which member
    /// made it is not known: it counts as made by the first that reports it.
    fn adopt(&mut self, frame: FrameNo, member: MemberId) -> Option<()> {
        // An error says nothing about the frame: better to keep one too many than to punch one that
        // is mapped.
        if self.pool.has_data(frame).is_ok_and(|has_data| !has_data) {
            return None;
        }
        let mut content = [0; 4096];
        let read = self.pool.read(frame, &mut content);
        let key = self.secret.key((self.digest)(&self.digest_key, &content));
        self.frames.adopt(frame, key.prefix(), member);
        match (read, self.index.find(key).map(Target::kind)) {
            (Err(error), _) => {
                tracing::warn!(%error, ?frame, "a shared frame cannot be read and will not be found by others");
            }
            // Its content has a frame already. Members may map either, so both stay; one of them is
            // found.
            (Ok(()), Some(Kind::Frame(_))) => {}
            (Ok(()), Some(Kind::Hint(place))) => self.replace_hint(place, key, frame),
            (Ok(()), None) => self.index.set(key, Target::frame(frame)),
        }
        Some(())
    }

    /// Ends recovery: all members have reported. All other memory of the pool goes back to the host
    /// in steps: see [`Domain::tidy`].
    pub fn recovered(&mut self) -> Freed {
        self.recovering = false;
        self.scrub();
        self.tidy()
    }

    /// Has the following calls of [`Domain::tidy`] find memory of the pool that belongs to no
    /// frame, and give it back to the host.
    pub fn scrub(&mut self) {
        self.scrubbed = Some(FrameNo(0));
    }

    /// Continues the search for at most `most_runs` runs of memory. Memory that belongs to no frame
    /// becomes lingering frames.
    pub(crate) fn scrub_on(&mut self, most_runs: usize) {
        for _ in 0..most_runs {
            let Some(from) = self.scrubbed.filter(|_| !self.recovering) else { return };
            let run = self.pool.data(from).unwrap_or_else(|error| {
                tracing::warn!(%error, "memory of the pool that belongs to no frame cannot be looked for");
                None
            });
            self.scrubbed = None;
            if let Some((first, frames)) = run {
                let end = (u64::from(first.0) + frames.0).min(self.frames.limit().into());
                let end = u32::try_from(end).unwrap_or(u32::MAX);
                (first.0..end).for_each(|frame| self.frames.linger(FrameNo(frame)));
                self.scrubbed = (end < self.frames.limit()).then_some(FrameNo(end));
            }
        }
    }
}
