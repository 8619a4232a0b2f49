//! Users for VMs: each running VM has one that no other has.

use std::collections::BTreeSet;

/// The users that are in use.
#[derive(Debug)]
pub(crate) struct Uids {
    base: u32,
    len: u32,
    taken: BTreeSet<u32>,
}

impl Uids {
    /// `len` users from `base` on; none at all where the daemon has no right to give them.
    pub(crate) fn new(base: u32, len: u32) -> Self {
        Self { base, len, taken: BTreeSet::new() }
    }

    /// A user that no VM has.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let uid = (self.base..self.base.saturating_add(self.len)).find(|uid| !self.taken.contains(uid))?;
        self.taken.insert(uid);
        Some(uid)
    }

    /// Notes that a VM runs as `uid` already.
    pub(crate) fn adopt(&mut self, uid: u32) {
        self.taken.insert(uid);
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
        uids.adopt(11);
        assert_eq!((uids.take(), uids.take(), uids.take()), (Some(10), Some(12), None));
        uids.release(11);
        assert_eq!(uids.take(), Some(11));
        assert_eq!(Uids::new(10, 0).take(), None);
    }
}
