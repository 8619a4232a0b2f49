//! Users for VMs: each running VM has one that no other has.

use std::collections::BTreeSet;

/// The users that are in use.
#[derive(Debug)]
pub(crate) struct Uids {
    base: u32,
    len: u32,
    taken: BTreeSet<u32>,
    /// Where the search for a free one begins: after the last that was given. A user that has just
    /// become free is not given to another VM at once, and a crowd is not searched from its start.
    next: u32,
}

impl Uids {
    /// `len` users from `base` on; none at all where the daemon has no right to give them.
    pub(crate) fn new(base: u32, len: u32) -> Self {
        Self { base, len, taken: BTreeSet::new(), next: 0 }
    }

    /// A user that no VM has.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let places = (self.next..self.len).chain(0..self.next);
        let user = |place: u32| self.base.checked_add(place).filter(|uid| !self.taken.contains(uid));
        let (place, uid) = places.into_iter().find_map(|place| Some((place, user(place)?)))?;
        self.taken.insert(uid);
        self.next = place + 1;
        Some(uid)
    }

    /// Notes that a VM runs as `uid` already. Returns whether no other does, as far as is known.
    pub(crate) fn adopt(&mut self, uid: u32) -> bool {
        self.taken.insert(uid)
    }

    /// The VM that ran as `uid` is gone.
    pub(crate) fn release(&mut self, uid: u32) {
        self.taken.remove(&uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_vms_share_a_user() {
        let mut uids = Uids::new(10, 3);
        assert!(uids.adopt(11) && !uids.adopt(11));
        assert_eq!((uids.take(), uids.take(), uids.take()), (Some(10), Some(12), None));
        uids.release(11);
        assert_eq!(uids.take(), Some(11));
        assert_eq!(Uids::new(10, 0).take(), None);
    }

    #[test]
    fn a_user_is_not_given_again_while_others_are_free() {
        let mut uids = Uids::new(10, 3);
        let given: Vec<u32> = (0..6)
            .map(|_| {
                let uid = uids.take().unwrap();
                uids.release(uid);
                uid
            })
            .collect();
        assert_eq!(given, [10, 11, 12, 10, 11, 12]);
    }
}
