use std::collections::BTreeMap;

use crate::key::{Key, Prefix};
use crate::target::Target;

/// From the key of a hash to the frame or the hint that has it.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: BTreeMap<u64, Target>,
}

impl Index {
    /// What has this hash.
    pub(crate) fn find(&self, key: Key) -> Option<Target> {
        self.entries.get(&key.0).copied()
    }

    /// From now on `target` has this hash, instead of what had it.
    pub(crate) fn set(&mut self, key: Key, target: Target) {
        self.entries.insert(key.0, target);
    }

    /// Forgets `target`, which has a hash of this prefix.
    pub(crate) fn remove(&mut self, prefix: Prefix, target: Target) -> bool {
        let first = u64::from(prefix.0) << (64 - Prefix::BITS);
        let last = first | (u64::MAX >> Prefix::BITS);
        let found =
            self.entries.range(first..=last).find(|(_, found)| **found == target).map(|(key, _)| *key);
        found.is_some_and(|key| self.entries.remove(&key).is_some())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.entries.len() * 16
    }
}
