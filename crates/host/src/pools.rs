//! The host's resource pools, and their record on disk.

use std::collections::BTreeMap;

use anyhow::Context;
use plimsoll_policy::{NamedPool, Pool, PoolId, PoolTree};
use plimsoll_protocol::PoolName;
use plimsoll_protocol::pool::{MAX_POOLS, Place, PoolDefinition};
use plimsoll_units::Pages;

use crate::paths::{Paths, write_atomically};

/// All pools of the host: always a tree, and always within their bounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pools {
    defined: BTreeMap<PoolName, PoolDefinition>,
    tree: PoolTree,
}

impl Pools {
    /// The pools of `definitions`.
    ///
    /// # Errors
    /// Which pool cannot be, in which field, with which value.
    pub(crate) fn new(definitions: Vec<PoolDefinition>) -> Result<Self, String> {
        if definitions.len() > MAX_POOLS {
            return Err(format!("there are {MAX_POOLS} pools already, and no more are possible"));
        }
        for definition in &definitions {
            definition.check().map_err(|e| e.to_string())?;
        }
        let named: Vec<NamedPool> = definitions.iter().map(named).collect();
        let tree = PoolTree::new(&named).map_err(|e| e.to_string())?;
        let defined = definitions.into_iter().map(|d| (d.name.clone(), d)).collect();
        Ok(Self { defined, tree })
    }

    /// These pools with `definition`, in place of the one of its name if there is one.
    ///
    /// # Errors
    /// As [`Pools::new`].
    pub(crate) fn with(&self, definition: PoolDefinition) -> Result<Self, String> {
        let mut defined = self.defined.clone();
        defined.insert(definition.name.clone(), definition);
        Self::new(defined.into_values().collect())
    }

    /// These pools without `pool`, which holds no other.
    ///
    /// # Errors
    /// It does hold others.
    pub(crate) fn without(&self, pool: &PoolName) -> Result<Self, String> {
        Self::new(self.defined.values().filter(|d| d.name != *pool).cloned().collect())
    }

    pub(crate) fn get(&self, pool: &PoolName) -> Option<&PoolDefinition> {
        self.defined.get(pool)
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &PoolDefinition> {
        self.defined.values()
    }

    /// Those directly at `place`, by name.
    pub(crate) fn at(&self, place: &Place) -> impl Iterator<Item = &PoolDefinition> {
        self.all().filter(move |pool| pool.parent == *place)
    }

    /// Whether `pool` is `above` itself or below it.
    pub(crate) fn is_within(&self, pool: &PoolName, above: &PoolName) -> bool {
        self.up_from(&Place::In(pool.clone())).any(|pool| pool.name == *above)
    }

    /// The pool at `place` and those above it, up to the root.
    pub(crate) fn up_from(&self, place: &Place) -> impl Iterator<Item = &PoolDefinition> {
        let at = |place: &Place| place.pool().and_then(|pool| self.get(pool));
        std::iter::successors(at(place), move |pool| at(&pool.parent))
    }

    /// As policy knows them.
    pub(crate) fn tree(&self) -> &PoolTree {
        &self.tree
    }

    /// How policy calls a place; `None` where there is no such pool.
    pub(crate) fn id(&self, place: &Place) -> Option<PoolId> {
        place.pool().map_or(Some(PoolId::ROOT), |pool| self.tree.find(pool.as_str()))
    }

    /// Reads the pools of an earlier daemon. A file that cannot be read is put aside, under a name of its own, and the
    /// VMs run outside of pools: an operator can mend that, but not a daemon that will not start.
    ///
    /// # Errors
    /// The file is there and can be neither read nor put aside.
    pub(crate) fn load(paths: &Paths) -> anyhow::Result<Self> {
        let path = paths.pools();
        let text = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let definitions = serde_json::from_slice(&text).map_err(|e| e.to_string());
        definitions.and_then(Self::new).or_else(|e| {
            let aside = path.with_extension("json.bad");
            std::fs::rename(&path, &aside)
                .with_context(|| format!("cannot move {} to {}", path.display(), aside.display()))?;
            tracing::error!("the pools are left out: {e}; they are in {}", aside.display());
            Ok(Self::default())
        })
    }
}

/// Writes all pools in one file, so that what a crash leaves is always a tree.
///
/// # Errors
/// Which file could not be written.
pub(crate) fn save(paths: &Paths, pools: &[PoolDefinition]) -> anyhow::Result<()> {
    let path = paths.pools();
    let text = serde_json::to_vec_pretty(pools)?;
    write_atomically(&path, &text).with_context(|| format!("cannot write {}", path.display()))
}

/// A pool as policy knows it.
fn named(definition: &PoolDefinition) -> NamedPool {
    let pool = Pool {
        shares: definition.share_count(),
        reservation: Pages::ceil(definition.reservation),
        // It holds to the page; a reservation as large stays within it.
        limit: definition.limit.map(|limit| Pages::floor(limit).max(Pages::ceil(definition.reservation))),
        expandable: definition.expandable,
    };
    let parent = definition.parent.pool().map(|name| name.as_str().to_owned());
    NamedPool { name: definition.name.as_str().to_owned(), parent, pool }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str, parent: &str) -> PoolDefinition {
        serde_json::from_value(serde_json::json!({"name": name, "parent": parent})).unwrap()
    }

    #[test]
    fn pools_survive_the_daemon_and_broken_ones_are_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths { state: directory.path().to_owned(), run: directory.path().to_owned() };
        assert_eq!(Pools::load(&paths).unwrap().all().count(), 0);
        let all = [pool("b", "a"), pool("a", "/")];
        save(&paths, &all).unwrap();
        let loaded = Pools::load(&paths).unwrap();
        assert_eq!(loaded.get(&"b".parse().unwrap()), Some(&all[0]));
        for bad in ["[".to_owned(), serde_json::to_string(&[pool("a", "a")]).unwrap()] {
            std::fs::write(paths.pools(), bad).unwrap();
            assert_eq!(Pools::load(&paths).unwrap().all().count(), 0);
            assert!(!paths.pools().exists() && paths.pools().with_extension("json.bad").exists());
        }
    }

    #[test]
    fn a_name_that_policy_does_not_know_has_no_place() {
        let pools = Pools::new(vec![pool("a", "/"), pool("b", "a")]).unwrap();
        assert_eq!(pools.id(&Place::Root), Some(PoolId::ROOT));
        assert!(pools.id(&"b".parse().unwrap()) > pools.id(&"a".parse().unwrap()));
        assert_eq!(pools.id(&"c".parse().unwrap()), None);
        assert!(pools.without(&"a".parse().unwrap()).unwrap_err().contains("\"a\""));
    }
}
