//! A resource pool as its operator defines it. Pools are a tree of shares, reservations and limits
//! in which VMs are placed.

use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::change::PoolChange;
use crate::definition::DefinitionError;
use crate::or_none::optional;
#[cfg(feature = "schema")]
use crate::or_none::optional_schema;
use crate::place::Place;
use crate::shares::Shares;
use crate::{OrNone, PoolName, forgotten_unit};

/// A pool's shares in words are those of a VM of this size, as in vSphere: 5, 10 or 20 per MiB of
/// 16 GiB.
const SHARES_SIZE: Bytes = Bytes::mib(16 << 10);
/// Most memory that a pool may reserve or be limited to, 1 PiB: no host is near it, and the sums
/// over [`MAX_POOLS`] stay far from the end of 64 bits.
const MAX_POOL_MEMORY: Bytes = Bytes::mib(1 << 30);
/// Most pools of a host: ten times what an operator can keep in mind, and little enough for every
/// list of them to be read.
pub const MAX_POOLS: usize = 1024;

/// A pool as its operator defines it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PoolDefinition {
    /// Unique among the host's pools.
    pub name: PoolName,
    /// The pool that it is part of.
    #[serde(default, skip_serializing_if = "Place::is_root")]
    pub parent: Place,
    /// Weight among its siblings, pools and VMs alike; in words, that of a VM of 16 GiB.
    #[serde(default)]
    pub shares: Shares,
    /// Machine memory that its VMs together always have, as far as they can use it.
    #[serde(default)]
    pub reservation: Bytes,
    /// Machine memory that its VMs together never exceed; `None`: no limit of its own.
    #[serde(default, deserialize_with = "optional", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "optional_schema::<Bytes>"))]
    pub limit: Option<Bytes>,
    /// What is reserved within it beyond its own reservation is reserved from its parent. Without,
    /// its own reservation is all that reservations within it can count on.
    #[serde(default = "yes")]
    pub expandable: bool,
}

fn yes() -> bool {
    true
}

impl PoolDefinition {
    /// The number that its shares stand for.
    pub fn share_count(&self) -> u64 {
        self.shares.resolve(SHARES_SIZE)
    }

    /// The definition after `change`.
    #[must_use]
    pub fn changed(&self, change: &PoolChange) -> Self {
        Self {
            name: self.name.clone(),
            parent: change.parent.clone().unwrap_or_else(|| self.parent.clone()),
            shares: change.shares.unwrap_or(self.shares),
            reservation: change.reservation.unwrap_or(self.reservation),
            limit: change.limit.map_or(self.limit, OrNone::option),
            expandable: change.expandable.unwrap_or(self.expandable),
        }
    }

    /// Checks every bound that needs no look at other pools.
    ///
    /// # Errors
    /// The first field that is out of its bounds, in one line.
    pub fn check(&self) -> Result<(), DefinitionError> {
        let name = &self.name;
        let fail = |text: String| Err(DefinitionError::new(format!("pool {name}: {text}")));
        for (field, value) in [("reservation", Some(self.reservation)), ("limit", self.limit)] {
            if let Some((value, meant)) = value.and_then(|value| Some((value, forgotten_unit(value)?))) {
                return fail(format!("{field} {value}: {meant}"));
            }
            if let Some(value) = value.filter(|value| *value > MAX_POOL_MEMORY) {
                return fail(format!("{field} {value}: at most {MAX_POOL_MEMORY} is allowed"));
            }
        }
        match self.limit {
            Some(limit) if self.reservation > limit => fail(format!(
                "reservation {} is over the limit {limit}: lower one or raise the other",
                self.reservation
            )),
            _ => self.shares.check().or_else(fail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(json: &str) -> Result<PoolDefinition, String> {
        let pool: PoolDefinition = serde_json::from_str(json).map_err(|e| e.to_string())?;
        pool.check().map(|()| pool).map_err(|e| e.to_string())
    }

    #[test]
    fn a_pool_is_expandable_and_of_normal_shares_unless_said_otherwise() {
        let p = pool(r#"{"name": "prod"}"#).unwrap();
        assert_eq!((p.expandable, p.share_count(), p.limit, &p.parent), (true, 163_840, None, &Place::Root));
        assert_eq!(p, serde_json::from_str(&serde_json::to_string(&p).unwrap()).unwrap());
    }

    #[test]
    fn what_cannot_be_is_refused_by_field_and_value() {
        for (json, part) in [
            (r#"{"name": "a b"}"#, "\"a b\" is not a pool name"),
            (r#"{"name": "a", "parent": "../b"}"#, "\"../b\" is not a pool name"),
            (r#"{"name": "a", "reservation": -1}"#, "negative"),
            (r#"{"name": "a", "reservation": 1e400}"#, "number out of range"),
            (r#"{"name": "a", "reservation": 1.5}"#, "1.5"),
            (
                r#"{"name": "a", "reservation": 64}"#,
                "reservation 64B: that is less than a page: did you mean 64MiB?",
            ),
            (r#"{"name": "a", "limit": 512}"#, "did you mean 512MiB?"),
            (
                r#"{"name": "a", "reservation": "2GiB", "limit": "1GiB"}"#,
                "pool a: reservation 2GiB is over the limit 1GiB",
            ),
            (
                r#"{"name": "a", "reservation": 18446744073709551615}"#,
                "pool a: reservation 16777216.0TiB: at most",
            ),
            (r#"{"name": "a", "limit": "2048TiB"}"#, "pool a: limit 2048TiB: at most"),
            (r#"{"name": "a", "shares": 0}"#, "shares \"0\""),
            (r#"{"name": "a", "shares": "lots"}"#, "lots"),
            (r#"{"name": "a", "colour": 1}"#, "colour"),
        ] {
            let error = pool(json).unwrap_err();
            assert!(error.contains(part), "{part}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let p = pool(r#"{"name": "a", "limit": "1GiB", "shares": "high"}"#).unwrap();
        let change: PoolChange = serde_json::from_str(r#"{"limit": "none", "parent": "b"}"#).unwrap();
        let changed = p.changed(&change);
        assert_eq!(
            (changed.limit, changed.shares, changed.parent.to_string()),
            (None, Shares::High, "b".into())
        );
        assert_eq!(
            changed.changed(&PoolChange { parent: Some(Place::Root), ..PoolChange::default() }).parent,
            Place::Root
        );
    }
}
