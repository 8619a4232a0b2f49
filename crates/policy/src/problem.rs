use std::collections::HashSet;

use plimsoll_units::{Bytes, PAGE_SIZE, Pages};

use crate::client::Client;
use crate::division::divide;
use crate::member::Member;
use crate::pool::{MAX_POOL_SHARES, NamedPool, Pool, PoolError, PoolId, PoolTree};
use crate::tax::Tax;

/// The largest sum of all VMs' sizes, 8 PiB. Up to it every byte count has its own floating-point
/// number, so that no sum loses a byte. No host is near it.
const MAX_TOTAL: u64 = 1 << 53;

/// A division to solve, in an operator's words: named VMs and pools, in bytes, unchecked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Problem {
    /// The memory to divide.
    pub machine: Bytes,
    /// The tax on idle memory; see [`Tax::new`].
    pub tax: f64,
    /// The VMs.
    pub vms: Vec<VmClaim>,
    /// The resource pools, in any order.
    pub pools: Vec<PoolClaim>,
}

/// A VM of a [`Problem`].
#[derive(Clone, Debug, PartialEq)]
pub struct VmClaim {
    /// Unique among VMs.
    pub name: String,
    /// Guest-physical memory.
    pub size: Bytes,
    /// The least that it gets.
    pub reservation: Bytes,
    /// The most that it gets, if that is less than its size.
    pub limit: Option<Bytes>,
    /// Its weight among its siblings, 1 to [`MAX_POOL_SHARES`].
    pub shares: u64,
    /// The memory that it actively uses. More than its size counts as its size.
    pub active: Bytes,
    /// A tax of its own.
    pub tax: Option<f64>,
    /// The name of its pool; `None`: the root.
    pub pool: Option<String>,
}

/// A resource pool of a [`Problem`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolClaim {
    /// Unique among pools.
    pub name: String,
    /// The name of its parent; `None`: the root.
    pub parent: Option<String>,
    /// Its weight among its siblings, 1 to [`MAX_POOL_SHARES`].
    pub shares: u64,
    /// The least memory of all its VMs together.
    pub reservation: Bytes,
    /// The most memory of all its VMs together.
    pub limit: Option<Bytes>,
    /// Its children's reservations beyond its own are reserved from its parent.
    pub expandable: bool,
}

/// The division that solves a [`Problem`].
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// The entitlement of each VM, in the order given.
    pub entitlements: Vec<Bytes>,
    /// The sum of the entitlements of each pool's VMs, in the order given.
    pub pools: Vec<Bytes>,
    /// The water level among the root's children: the cost per share, in active bytes. See
    /// [`crate::Division::level`].
    pub water_level: f64,
    /// Pools whose reservations did not fit.
    pub shortfalls: Vec<PoolShortfall>,
}

/// A pool that has less than its children have reserved; see [`crate::Shortfall`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolShortfall {
    /// Its name; `None`: the root.
    pub pool: Option<String>,
    /// The sum of its children's reservations.
    pub reserved: Bytes,
    /// The memory that it has.
    pub has: Bytes,
}

/// A value in a [`Problem`] that is out of bounds: its owner, field and value, and the bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProblemError {
    /// A field that is out of its bounds.
    #[error("{whose}{field} {value}: {rule}")]
    Field {
        /// The VM or pool, with a colon and a blank; empty for a field of the problem itself.
        whose: String,
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// The bounds.
        rule: String,
    },
    /// Pools that make no tree.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

impl Problem {
    /// Checks and solves the problem. The answers are whole pages if all amounts are, else they are
    /// exact to the byte.
    ///
    /// # Errors
    /// The first field that is out of its bounds.
    pub fn solve(&self) -> Result<Solution, ProblemError> {
        let tax = check_tax("", self.tax)?;
        let unit = self.unit();
        let tree = self.tree(unit)?;
        let members = self.members(unit, &tree)?;
        let division = divide(Pages(self.machine.0 / unit), tax, &tree, &members);
        let bytes = |pages: Pages| Bytes(pages.0 * unit);
        let pool = |p: &PoolClaim| tree.find(&p.name).map_or(Pages::ZERO, |id| division.pools[id.index()]);
        let shortfalls = division.shortfalls.iter().map(|s| PoolShortfall {
            pool: tree.name(s.pool).map(str::to_owned),
            reserved: bytes(s.reserved),
            has: bytes(s.has),
        });
        #[expect(clippy::cast_precision_loss, reason = "1 or 4096")]
        let unit_bytes = unit as f64;
        Ok(Solution {
            entitlements: division.vms.iter().copied().map(bytes).collect(),
            pools: self.pools.iter().map(pool).map(bytes).collect(),
            water_level: division.level * unit_bytes,
            shortfalls: shortfalls.collect(),
        })
    }

    /// The number of bytes that the solver counts as one page: a page's bytes if all amounts are
    /// whole pages, else 1. Limits of at least the size, which tools write as their largest number,
    /// do not count.
    fn unit(&self) -> u64 {
        let vms = self.vms.iter().flat_map(|vm| {
            let limit = vm.limit.filter(|limit| *limit < vm.size);
            [Some(vm.size), Some(vm.reservation), Some(vm.active.min(vm.size)), limit]
        });
        let pools = self
            .pools
            .iter()
            .flat_map(|pool| [Some(pool.reservation), pool.limit.filter(|limit| limit.0 < MAX_TOTAL)]);
        let mut amounts = std::iter::once(self.machine).chain(vms.chain(pools).flatten());
        if amounts.all(|b| b.0.is_multiple_of(PAGE_SIZE)) { PAGE_SIZE } else { 1 }
    }

    fn tree(&self, unit: u64) -> Result<PoolTree, ProblemError> {
        let pages = |bytes: Bytes| Pages(bytes.0 / unit);
        let mut pools = Vec::with_capacity(self.pools.len());
        for claim in &self.pools {
            let whose = format!("pool {:?}: ", claim.name);
            check_limit(&whose, claim.reservation, claim.limit)?;
            if claim.reservation.0 > MAX_TOTAL {
                return Err(too_much(&whose, "reservation", claim.reservation));
            }
            let pool = Pool {
                shares: claim.shares,
                reservation: pages(claim.reservation),
                limit: claim.limit.map(pages),
                expandable: claim.expandable,
            };
            pools.push(NamedPool { name: claim.name.clone(), parent: claim.parent.clone(), pool });
        }
        Ok(PoolTree::new(&pools)?)
    }

    fn members(&self, unit: u64, tree: &PoolTree) -> Result<Vec<Member>, ProblemError> {
        let mut names = HashSet::with_capacity(self.vms.len());
        let mut total = 0u64;
        let mut members = Vec::with_capacity(self.vms.len());
        for vm in &self.vms {
            let whose = format!("vm {:?}: ", vm.name);
            if !names.insert(vm.name.as_str()) {
                return Err(field(&whose, "name", format!("{:?}", vm.name), "is taken by another vm"));
            }
            total = total.saturating_add(vm.size.0);
            if total > MAX_TOTAL {
                return Err(too_much(&whose, "size", vm.size));
            }
            members.push(vm.member(&whose, unit, tree)?);
        }
        Ok(members)
    }
}

impl VmClaim {
    fn member(&self, whose: &str, unit: u64, tree: &PoolTree) -> Result<Member, ProblemError> {
        if self.reservation > self.size {
            let rule = format!("it is over the size {}", self.size.0);
            return Err(field(whose, "reservation", self.reservation.0, rule));
        }
        check_limit(whose, self.reservation, self.limit)?;
        if !(1..=MAX_POOL_SHARES).contains(&self.shares) {
            return Err(field(whose, "shares", self.shares, format!("must be 1 to {MAX_POOL_SHARES}")));
        }
        let pool = match &self.pool {
            None => PoolId::ROOT,
            Some(name) => tree.find(name).ok_or_else(|| {
                let rule = "is no pool: name one that is defined, or leave it out for the root";
                field(whose, "pool", format!("{name:?}"), rule)
            })?,
        };
        let limit = self.limit.unwrap_or(self.size).min(self.size);
        let client = Client {
            reservation: Pages(self.reservation.0 / unit),
            limit: Pages(limit.0 / unit),
            shares: self.shares,
            active: Pages(self.active.min(self.size).0 / unit),
        };
        let tax = self.tax.map(|rate| check_tax(whose, rate)).transpose()?;
        Ok(Member { client, tax, pool })
    }
}

fn check_tax(whose: &str, rate: f64) -> Result<Tax, ProblemError> {
    Tax::new(rate).ok_or_else(|| field(whose, "tax", rate, "must be 0 to 0.99"))
}

fn check_limit(whose: &str, reservation: Bytes, limit: Option<Bytes>) -> Result<(), ProblemError> {
    match limit {
        Some(limit) if reservation > limit => {
            Err(field(whose, "reservation", reservation.0, format!("it is over the limit {}", limit.0)))
        }
        _ => Ok(()),
    }
}

fn too_much(whose: &str, name: &'static str, value: Bytes) -> ProblemError {
    field(whose, name, value.0, format!("at most {MAX_TOTAL} are allowed, for all together"))
}

fn field(whose: &str, field: &'static str, value: impl ToString, rule: impl Into<String>) -> ProblemError {
    ProblemError::Field { whose: whose.to_owned(), field, value: value.to_string(), rule: rule.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vm(name: &str, size: u64, active: u64) -> VmClaim {
        VmClaim {
            name: name.to_owned(),
            size: Bytes(size),
            reservation: Bytes(0),
            limit: None,
            shares: 100,
            active: Bytes(active),
            tax: None,
            pool: None,
        }
    }

    fn pool(name: &str, parent: Option<&str>) -> PoolClaim {
        PoolClaim {
            name: name.to_owned(),
            parent: parent.map(str::to_owned),
            shares: 100,
            reservation: Bytes(0),
            limit: None,
            expandable: true,
        }
    }

    fn problem() -> Problem {
        let in_pool = VmClaim { pool: Some("p".to_owned()), ..vm("b", 8192, 0) };
        Problem {
            machine: Bytes(12288),
            tax: 0.75,
            vms: vec![vm("a", 8192, 8192), in_pool],
            pools: vec![pool("p", None)],
        }
    }

    #[test]
    fn whole_pages_stay_whole_and_others_are_divided_to_the_byte() {
        let whole = problem().solve().unwrap();
        assert_eq!(whole.entitlements, [Bytes(8192), Bytes(4096)]);
        assert_eq!(whole.pools, [Bytes(4096)]);
        let odd = Problem { machine: Bytes(12289), tax: 0.0, ..problem() }.solve().unwrap();
        assert_eq!(odd.entitlements, [Bytes(6145), Bytes(6144)]);
        // Equal prices: 2 + 4 x = 8190 - x with x idle bytes of the first, which makes 1639.6 and
        // 6552.4.
        let mut active = problem();
        active.machine = Bytes(8192);
        active.vms[0].active = Bytes(2);
        active.vms[1].active = Bytes(8192);
        assert_eq!(active.solve().unwrap().entitlements, [Bytes(1639), Bytes(6553)]);
    }

    #[test]
    fn reservations_that_do_not_fit_are_told() {
        let mut short = problem();
        short.vms[0].reservation = Bytes(8192);
        short.vms[1].reservation = Bytes(8192);
        let solution = short.solve().unwrap();
        assert_eq!(solution.entitlements.iter().map(|b| b.0).sum::<u64>(), 12288);
        let told = PoolShortfall { pool: None, reserved: Bytes(16384), has: Bytes(12288) };
        assert_eq!(solution.shortfalls[0], told);
    }

    #[test]
    fn every_error_names_field_and_value() {
        type Change = fn(&mut Problem);
        let cases: [(Change, &str); 15] = [
            (|p| p.tax = f64::NAN, "tax NaN: must be 0 to 0.99"),
            (|p| p.tax = 1.0, "tax 1: must be 0 to 0.99"),
            (|p| p.tax = -0.1, "tax -0.1: must be 0 to 0.99"),
            (|p| p.vms[1].tax = Some(f64::INFINITY), "vm \"b\": tax inf: must be 0 to 0.99"),
            (|p| p.vms[1].name = "a".to_owned(), "vm \"a\": name \"a\": is taken by another vm"),
            (|p| p.vms[0].reservation = Bytes(8193), "vm \"a\": reservation 8193: it is over the size 8192"),
            (
                |p| (p.vms[0].reservation, p.vms[0].limit) = (Bytes(6), Some(Bytes(5))),
                "vm \"a\": reservation 6: it is over the limit 5",
            ),
            (|p| p.vms[0].shares = 0, "vm \"a\": shares 0: must be 1 to 1000000000000"),
            (|p| p.vms[0].pool = Some("q".to_owned()), "vm \"a\": pool \"q\": is no pool: name one"),
            (|p| p.vms[0].size = Bytes(u64::MAX), "vm \"a\": size 18446744073709551615: at most"),
            (|p| p.vms[1].size = Bytes(MAX_TOTAL - 8191), "vm \"b\": size 9007199254732801: at most"),
            (|p| p.pools[0].parent = Some("p".to_owned()), "pool \"p\": parent \"p\" is below"),
            (|p| p.pools.push(pool("p", None)), "pool \"p\": name \"p\" is taken"),
            (
                |p| (p.pools[0].reservation, p.pools[0].limit) = (Bytes(6), Some(Bytes(5))),
                "pool \"p\": reservation 6: it is over the limit 5",
            ),
            (|p| p.pools[0].reservation = Bytes(u64::MAX), "pool \"p\": reservation 18446744073709551615"),
        ];
        for (change, start) in cases {
            let mut bad = problem();
            change(&mut bad);
            let error = bad.solve().unwrap_err().to_string();
            assert!(error.starts_with(start), "{start}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_passes_the_checks_panics_or_breaks_a_bound(
            machine: u64, tax in -0.1..1.0f64,
            vms in prop::collection::vec((any::<u64>(), any::<u64>(), prop::option::of(any::<u64>()), any::<u64>(), 0u32..64, prop::option::of(0..3usize)), 0..6),
            pools in prop::collection::vec((any::<u64>(), prop::option::of(any::<u64>()), any::<u64>(), prop::option::of(0..3usize), any::<bool>(), 0u32..64), 0..4),
        ) {
            let pool_name = |i: usize| i.to_string();
            // Most random problems are valid, of every magnitude.
            let shares = |shares: u64, shift: u32| 1 + (shares >> shift) % MAX_POOL_SHARES;
            let vms = vms.into_iter().enumerate().map(|(i, (size, reservation, limit, weight, shift, pool))| {
                let size = (size >> 13) >> (shift % 50);
                let limit = limit.map(|limit| limit % (size + 1));
                VmClaim {
                    name: i.to_string(),
                    size: Bytes(size),
                    reservation: Bytes(reservation % (limit.unwrap_or(size) + 1) / 4),
                    limit: limit.map(Bytes),
                    shares: shares(weight, shift),
                    active: Bytes(weight >> 13),
                    tax: None,
                    pool: pool.filter(|p| *p < pools.len()).map(pool_name),
                }
            }).collect();
            let pools = pools.into_iter().enumerate().map(|(i, (reservation, limit, weight, parent, expandable, shift))| PoolClaim {
                name: i.to_string(),
                parent: parent.filter(|p| *p < i).map(pool_name),
                shares: shares(weight, shift),
                reservation: Bytes((reservation % (limit.unwrap_or(u64::MAX) / 2 + 1)) >> 13),
                limit: limit.map(Bytes),
                expandable,
            }).collect();
            let problem = Problem { machine: Bytes(machine >> 11), tax, vms, pools };
            if let Ok(solution) = problem.solve() {
                let sum: u64 = solution.entitlements.iter().map(|b| b.0).sum();
                prop_assert!(sum <= problem.machine.0);
                for (vm, got) in problem.vms.iter().zip(&solution.entitlements) {
                    prop_assert!(*got <= vm.size.min(vm.limit.unwrap_or(vm.size)));
                    prop_assert!(*got >= vm.reservation || !solution.shortfalls.is_empty());
                }
                prop_assert!(solution.water_level.is_finite() && solution.water_level >= 0.0);
            }
        }
    }
}
