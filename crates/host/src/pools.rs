//! The host's resource pools, and their record on disk.

use std::collections::BTreeMap;

use anyhow::Context;
use plimsoll_policy::{NamedPool, Pool, PoolId, PoolTree};
use plimsoll_protocol::pool::{MAX_POOLS, PoolDefinition};
use plimsoll_protocol::{Place, PoolName};
use plimsoll_units::Pages;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::format;
use crate::paths::{Paths, free_name};

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
            return Err(format!("there are {MAX_POOLS} pools, the most that are allowed"));
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

    /// The pool at `place` and those above it, up to the root.
    pub(crate) fn up_from(&self, place: &Place) -> impl Iterator<Item = &PoolDefinition> {
        let at = |place: &Place| place.pool().and_then(|pool| self.get(pool));
        std::iter::successors(at(place), move |pool| at(&pool.parent))
    }

    /// The tree as policy takes it.
    pub(crate) fn tree(&self) -> &PoolTree {
        &self.tree
    }

    /// Policy's name of a place; `None`: there is no such pool.
    pub(crate) fn id(&self, place: &Place) -> Option<PoolId> {
        place.pool().map_or(Some(PoolId::ROOT), |pool| self.tree.find(pool.as_str()))
    }

    /// Reads the pools of an earlier daemon. Returns a note for users as well, if something is
    /// wrong.
    ///
    /// A file that cannot be read in full is kept under a name of its own. What can be read of it,
    /// each pool by the keys that are known, takes its place; if that is nothing, VMs run outside
    /// of pools. An operator can mend that, but not a daemon that will not start.
    ///
    /// # Errors
    /// The file is there and can be neither read nor kept.
    pub(crate) fn load(paths: &Paths) -> anyhow::Result<(Self, Option<String>)> {
        let path = paths.pools();
        let text = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((Self::default(), None)),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let why = match parse(&text) {
            Ok(pools) => return Ok((pools, None)),
            Err(why) => why,
        };
        let kept = free_name(&path);
        // A second name takes no space, and the disk may be full.
        std::fs::hard_link(&path, &kept)
            .with_context(|| format!("cannot keep {} as {}", path.display(), kept.display()))?;
        let (pools, read) = match outline(&text) {
            Some(pools) => (pools, "what could be read of them is in force"),
            None => (Self::default(), "VMs run outside of pools"),
        };
        let all: Vec<PoolDefinition> = pools.all().cloned().collect();
        if let Err(e) = save(paths, &all) {
            tracing::error!("{e:#}");
        }
        let problem = format!(
            "the resource pools in {} cannot be read: {why}: {read}; the file is kept as {}",
            path.display(),
            kept.display()
        );
        Ok((pools, Some(problem)))
    }
}

/// All pools on disk.
#[derive(Serialize, Deserialize)]
struct Stored<P> {
    pools: Vec<P>,
}

/// The pools in `text`.
///
/// # Errors
/// They cannot be read in full, or are no tree.
pub(crate) fn parse(text: &[u8]) -> Result<Pools, String> {
    // Version 1 was the bare list.
    let definitions = match serde_json::from_slice::<Value>(text) {
        Ok(list @ Value::Array(_)) => serde_json::from_value(list).map_err(|e| e.to_string())?,
        _ => format::parse::<Stored<PoolDefinition>>(text).map_err(|e| format!("{e:#}"))?.pools,
    };
    Pools::new(definitions)
}

/// The pools of a file by the keys that this version knows; `None`: these are malformed.
fn outline(text: &[u8]) -> Option<Pools> {
    const KEYS: [&str; 6] = ["name", "parent", "shares", "reservation", "limit", "expandable"];
    let Stored { pools } = serde_json::from_slice::<Stored<serde_json::Map<String, Value>>>(text).ok()?;
    let known = |mut pool: serde_json::Map<String, Value>| {
        pool.retain(|key, _| KEYS.contains(&key.as_str()));
        serde_json::from_value(Value::Object(pool)).ok()
    };
    Pools::new(pools.into_iter().map(known).collect::<Option<Vec<PoolDefinition>>>()?).ok()
}

/// Writes all pools in one file, so that what a crash leaves is always a tree.
///
/// # Errors
/// Which file could not be written.
pub(crate) fn save(paths: &Paths, pools: &[PoolDefinition]) -> anyhow::Result<()> {
    format::write(&paths.pools(), &Stored { pools: pools.to_vec() })
}

/// A pool as policy takes it.
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
    fn pools_survive_the_daemon_and_broken_ones_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::below(directory.path());
        assert_eq!(Pools::load(&paths).unwrap().0.all().count(), 0);
        let all = [pool("b", "a"), pool("a", "/")];
        save(&paths, &all).unwrap();
        let loaded = |paths| {
            let (pools, problem) = Pools::load(paths).unwrap();
            (pools.get(&"b".parse().unwrap()).cloned(), problem)
        };
        assert_eq!(loaded(&paths), (Some(all[0].clone()), None));
        // As an earlier version wrote them.
        std::fs::write(paths.pools(), serde_json::to_string(&all).unwrap()).unwrap();
        assert_eq!(loaded(&paths), (Some(all[0].clone()), None));
        // As a newer one may.
        let newer = serde_json::json!({"version": 3, "pools": [
            {"name": "a", "parent": "/", "colour": "blue"}, {"name": "b", "parent": "a"}]});
        std::fs::write(paths.pools(), newer.to_string()).unwrap();
        let (b, problem) = loaded(&paths);
        assert_eq!(b.as_ref(), Some(&all[0]));
        assert!(problem.is_some_and(|p| p.contains("newer plimsolld") && p.contains("in force")));
        for bad in ["[".to_owned(), serde_json::to_string(&[pool("a", "a")]).unwrap()] {
            std::fs::write(paths.pools(), bad).unwrap();
            let (b, problem) = loaded(&paths);
            assert!(b.is_none() && problem.is_some_and(|p| p.contains("outside of pools")));
        }
        let kept = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!((kept("pools.json.bad"), kept("pools.json.bad.1")), (newer.to_string(), "[".to_owned()));
        assert!(directory.path().join("pools.json.bad.2").exists());
        assert_eq!(loaded(&paths), (None, None), "it is told once");
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
