use std::collections::BTreeMap;

use plimsoll_units::FrameNo;

use super::*;

impl Domain {
    /// Everything that must hold between two calls.
    pub(super) fn audit(&mut self) {
        let mut references: BTreeMap<FrameNo, u64> = BTreeMap::new();
        let mut hints = 0;
        let ids: Vec<MemberId> = self.members().collect();
        for member in ids {
            let account = self.members.get(member).unwrap().account;
            let (mut own_references, mut own_hints) = (0, 0);
            for number in 0.. {
                let Some(place) = self.place(member, PageNo(number)) else { break };
                match self.held(place) {
                    Held::Nothing => {}
                    Held::Hint(prefix) => {
                        own_hints += 1;
                        assert!(
                            self.index.has(prefix, Target::hint(place)),
                            "{member:?} {number}: hint not indexed"
                        );
                    }
                    Held::Reference(frame) => {
                        own_references += 1;
                        *references.entry(frame).or_default() += 1;
                    }
                }
            }
            assert_eq!((account.references, account.hints), (own_references, own_hints), "{member:?}");
            hints += own_hints;
        }
        if self.members.vacant().is_none() {
            assert_eq!(self.frames.references(), references.values().sum::<u64>());
            assert_eq!(self.frames.in_use(), references.len() as u64, "frames without references");
            assert_eq!(self.stats().hints, Pages(hints));
            assert!(self.index.entries() as u64 <= hints + self.frames.in_use(), "entries of nothing");
        }
        for (frame, count) in &references {
            assert!(self.frames.is_used(*frame) && self.frames.count(*frame) >= *count, "{frame:?}");
            if self.frames.is_accused_by_two(*frame) {
                continue;
            }
            let key = self.secret.key((self.digest)(&self.digest_key, &self.content(*frame)));
            assert!(
                matches!(self.index.find(key).map(Target::kind), Some(Kind::Frame(_))),
                "{frame:?} cannot be found"
            );
        }
        let stats = self.stats();
        assert!(stats.frames <= stats.limit);
        assert_eq!(self.pool.resident().unwrap(), stats.frames, "memory of frames that there are not");
    }

    /// Everybody leaves, and nothing is left.
    pub(super) fn dissolve(mut self) {
        let ids: Vec<MemberId> = self.members().collect();
        for member in ids {
            self.leave(member);
        }
        while self.tidy().more {}
        let stats = self.stats();
        assert_eq!((stats.frames, stats.references, stats.hints), (Pages(0), Pages(0), Pages(0)));
        assert_eq!((self.index.entries(), self.pool.resident().unwrap()), (0, Pages(0)));
        assert!(self.members.ranges().is_empty());
    }
}
