use std::collections::HashMap;

use plimsoll_units::Pages;

/// The largest number of pools above a VM, without the root. vSphere allows 8. Each level costs one
/// more pass over its VMs, and 32 keeps the recursion over the tree far from any stack's end.
pub const MAX_POOL_DEPTH: usize = 32;

/// The largest number of shares: 5000 times the protocol's largest for a VM, for pools of many VMs.
/// Beyond some 2^50 the sums of shares would lose single shares.
pub const MAX_POOL_SHARES: u64 = 1_000_000_000_000;

/// The parameters of a resource pool among its siblings: pools and VMs of the same parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its weight, 1 to [`MAX_POOL_SHARES`].
    pub shares: u64,
    /// The least memory of all its VMs together, as far as they can use it.
    pub reservation: Pages,
    /// The most memory of all its VMs together; `None`: no limit of its own.
    pub limit: Option<Pages>,
    /// Its children's reservations beyond `reservation` are reserved from its parent. If not
    /// expandable, its children can count on `reservation` only.
    pub expandable: bool,
}

/// A pool with its name and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPool {
    /// Its name, unique among pools.
    pub name: String,
    /// The name of its parent; `None`: the root, the host itself.
    pub parent: Option<String>,
    /// Its parameters.
    pub pool: Pool,
}

/// A pool of a [`PoolTree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(usize);

impl PoolId {
    /// The host itself: the pool of VMs and pools without another parent.
    pub const ROOT: Self = Self(0);

    /// The pool with that [`index`](Self::index).
    pub(crate) fn of_index(index: usize) -> Self {
        Self(index)
    }

    /// Its place in [`Division::pools`](crate::Division::pools).
    pub fn index(self) -> usize {
        self.0
    }
}

/// The resource pools of a host: a tree whose root is the host. Every pool comes after its parent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolTree {
    /// The pools below the root; pool `i` here has the id `i + 1`.
    pools: Vec<(NamedPool, PoolId)>,
    ids: HashMap<String, PoolId>,
}

/// Pools that make no tree, or a pool with contradictory parameters: the pool, the field and the
/// value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Two pools have the same name.
    #[error("pool {0:?}: name {0:?} is taken by another pool")]
    DuplicateName(String),
    /// A parent that does not exist.
    #[error(
        "pool {name:?}: parent {parent:?} is no pool: name one that is defined, or leave it out for the root"
    )]
    UnknownParent {
        /// The pool.
        name: String,
        /// The parent that it names.
        parent: String,
    },
    /// A pool that is its own ancestor.
    #[error("pool {name:?}: parent {parent:?} is below {name:?} itself, a cycle: {path}")]
    Cycle {
        /// A pool of the cycle.
        name: String,
        /// Its parent.
        parent: String,
        /// From the pool up to itself.
        path: String,
    },
    /// Too many pools above each other.
    #[error(
        "pool {name:?}: parent {parent:?} is {MAX_POOL_DEPTH} levels below the root, the deepest that is allowed"
    )]
    TooDeep {
        /// The pool.
        name: String,
        /// Its parent.
        parent: String,
    },
    /// A reservation above the limit.
    #[error("pool {name:?}: reservation {} is over its limit {}", reservation.bytes(), limit.bytes())]
    ReservationOverLimit {
        /// The pool.
        name: String,
        /// Its reservation.
        reservation: Pages,
        /// Its limit.
        limit: Pages,
    },
    /// A number of shares out of bounds.
    #[error("pool {name:?}: shares {shares}: must be 1 to {MAX_POOL_SHARES}")]
    Shares {
        /// The pool.
        name: String,
        /// Its shares.
        shares: u64,
    },
}

impl PoolTree {
    /// The tree of `pools`, which may come in any order.
    ///
    /// # Errors
    /// The first pool that cannot be placed or has contradictory parameters.
    pub fn new(pools: &[NamedPool]) -> Result<Self, PoolError> {
        let mut positions = HashMap::with_capacity(pools.len());
        for (i, NamedPool { name, pool, .. }) in pools.iter().enumerate() {
            if positions.insert(name.as_str(), i).is_some() {
                return Err(PoolError::DuplicateName(name.clone()));
            }
            check(name, pool)?;
        }
        let mut tree = Self::default();
        for pool in pools {
            tree.place(pool, pools, &positions)?;
        }
        Ok(tree)
    }

    /// Adds a pool after all its ancestors.
    fn place(
        &mut self,
        pool: &NamedPool,
        pools: &[NamedPool],
        positions: &HashMap<&str, usize>,
    ) -> Result<(), PoolError> {
        let mut chain = vec![pool];
        // From the pool up to the first ancestor in the tree.
        while let Some(parent) = chain.last().and_then(|p| p.parent.as_deref())
            && !self.ids.contains_key(parent)
        {
            let name = chain.last().map(|p| p.name.clone()).unwrap_or_default();
            let Some(&position) = positions.get(parent) else {
                return Err(PoolError::UnknownParent { name, parent: parent.to_owned() });
            };
            let ancestor = &pools[position];
            if let Some(start) = chain.iter().position(|p| p.name == ancestor.name) {
                return Err(cycle(&chain[start..]));
            }
            chain.push(ancestor);
        }
        for pool in chain.into_iter().rev() {
            if !self.ids.contains_key(&pool.name) {
                self.append(pool)?;
            }
        }
        Ok(())
    }

    /// Adds a pool whose parent is in the tree.
    fn append(&mut self, pool: &NamedPool) -> Result<(), PoolError> {
        let parent = pool.parent.as_ref().map_or(PoolId::ROOT, |p| self.ids[p]);
        if self.ancestors(parent).count() >= MAX_POOL_DEPTH {
            let parent = pool.parent.clone().unwrap_or_default();
            return Err(PoolError::TooDeep { name: pool.name.clone(), parent });
        }
        self.pools.push((pool.clone(), parent));
        self.ids.insert(pool.name.clone(), PoolId(self.pools.len()));
        Ok(())
    }

    /// The pool and the pools above it, without the root.
    pub fn ancestors(&self, id: PoolId) -> impl Iterator<Item = PoolId> {
        std::iter::successors(Some(id), |id| id.0.checked_sub(1).map(|i| self.pools[i].1))
            .take_while(|id| *id != PoolId::ROOT)
    }

    /// The pool with that name.
    pub fn find(&self, name: &str) -> Option<PoolId> {
        self.ids.get(name).copied()
    }

    /// The name of a pool; `None` for the root, and for a pool of another tree.
    pub fn name(&self, id: PoolId) -> Option<&str> {
        Some(self.get(id)?.name.as_str())
    }

    /// A pool's parameters and place; `None` for the root, and for a pool of another tree.
    pub fn get(&self, id: PoolId) -> Option<&NamedPool> {
        Some(&self.pools.get(id.0.checked_sub(1)?)?.0)
    }

    /// Its parent; `None` for the root, and for a pool of another tree.
    pub fn parent(&self, id: PoolId) -> Option<PoolId> {
        Some(self.pools.get(id.0.checked_sub(1)?)?.1)
    }

    /// The root, and every pool after its parent.
    pub fn ids(&self) -> impl Iterator<Item = PoolId> {
        (0..self.count()).map(PoolId)
    }

    /// The same tree with other parameters for a pool, unchecked.
    pub(crate) fn with(&self, id: PoolId, pool: Pool) -> Self {
        let mut tree = self.clone();
        if let Some((named, _)) = id.0.checked_sub(1).and_then(|i| tree.pools.get_mut(i)) {
            named.pool = pool;
        }
        tree
    }

    /// The number of pools, with the root.
    pub(crate) fn count(&self) -> usize {
        self.pools.len() + 1
    }

    /// Every pool but the root with its parameters and its parent's index, children before their
    /// parents.
    pub(crate) fn leaves_first(&self) -> impl Iterator<Item = (PoolId, Pool, PoolId)> {
        self.pools.iter().enumerate().rev().map(|(i, (named, parent))| (PoolId(i + 1), named.pool, *parent))
    }
}

fn check(name: &str, pool: &Pool) -> Result<(), PoolError> {
    let name = || name.to_owned();
    if !(1..=MAX_POOL_SHARES).contains(&pool.shares) {
        return Err(PoolError::Shares { name: name(), shares: pool.shares });
    }
    match pool.limit {
        Some(limit) if pool.reservation > limit => {
            Err(PoolError::ReservationOverLimit { name: name(), reservation: pool.reservation, limit })
        }
        _ => Ok(()),
    }
}

/// The error for a `chain` of pools that each name the next as parent, and the last one the first.
fn cycle(chain: &[&NamedPool]) -> PoolError {
    let names: Vec<&str> = chain.iter().chain(chain.first()).map(|p| p.name.as_str()).collect();
    let (name, parent) = (names[0].to_owned(), names[1].to_owned());
    // A cycle of thousands of pools would make a message of thousands of words.
    let path = if names.len() > 8 {
        format!("{} < ... < {}", names[..3].join(" < "), names[names.len() - 1])
    } else {
        names.join(" < ")
    };
    PoolError::Cycle { name, parent, path }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str, parent: Option<&str>) -> NamedPool {
        let pool = Pool { shares: 1, reservation: Pages(0), limit: None, expandable: true };
        NamedPool { name: name.to_owned(), parent: parent.map(str::to_owned), pool }
    }

    fn error(pools: &[NamedPool]) -> String {
        PoolTree::new(pools).unwrap_err().to_string()
    }

    #[test]
    fn children_may_be_defined_before_their_parents() {
        let tree = PoolTree::new(&[pool("c", Some("b")), pool("b", Some("a")), pool("a", None)]).unwrap();
        let ids = ["a", "b", "c"].map(|name| tree.find(name).unwrap());
        assert!(ids[0] < ids[1] && ids[1] < ids[2]);
        assert_eq!(tree.name(ids[2]), Some("c"));
        assert_eq!((tree.name(PoolId::ROOT), tree.name(PoolId(9)), tree.find("d")), (None, None, None));
    }

    #[test]
    fn what_is_no_tree_is_refused_by_name() {
        assert_eq!(
            error(&[pool("a", None), pool("a", None)]),
            "pool \"a\": name \"a\" is taken by another pool"
        );
        assert!(error(&[pool("a", Some("b"))]).starts_with("pool \"a\": parent \"b\" is no pool"));
        assert!(error(&[pool("a", Some("a"))]).ends_with("a cycle: a < a"));
        let cycle = [pool("x", Some("a")), pool("a", Some("b")), pool("b", Some("c")), pool("c", Some("a"))];
        assert_eq!(error(&cycle), "pool \"a\": parent \"b\" is below \"a\" itself, a cycle: a < b < c < a");
        let deep: Vec<NamedPool> = (0..=MAX_POOL_DEPTH)
            .map(|i| pool(&i.to_string(), i.checked_sub(1).map(|p| p.to_string()).as_deref()))
            .collect();
        assert!(PoolTree::new(&deep[1..]).is_err_and(|e| matches!(e, PoolError::UnknownParent { .. })));
        assert!(error(&deep).starts_with("pool \"32\": parent \"31\""));
        assert!(PoolTree::new(&deep[..MAX_POOL_DEPTH]).is_ok());
    }

    #[test]
    fn parameters_that_contradict_each_other_are_refused_with_their_values() {
        let mut bad = pool("a", None);
        bad.pool.reservation = Pages(512);
        bad.pool.limit = Some(Pages(256));
        assert_eq!(error(&[bad]), "pool \"a\": reservation 2MiB is over its limit 1MiB");
        for shares in [0, MAX_POOL_SHARES + 1] {
            let mut bad = pool("a", None);
            bad.pool.shares = shares;
            assert!(error(&[bad]).starts_with(&format!("pool \"a\": shares {shares}:")));
        }
    }
}
