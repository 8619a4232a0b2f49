use plimsoll_policy::{Claim, PoolId, Reservations, admit};
use plimsoll_protocol::Place;
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_units::Pages;

use super::{Core, Failure, FailureKind, RunId, overhead, reservation, size};
use crate::pools::Pools;

/// Whether new promises can be kept.
///
/// Two questions are asked: whether it fits what pools, machine and swap space have not promised
/// yet (Waldspurger 2002, section 6.1), and whether it is there now, because a promise must not
/// depend on another VM giving memory back.
impl Core {
    /// Whether a VM that is off may be started.
    pub(super) fn admit_start(&self, definition: &VmDefinition) -> Result<(), Failure> {
        let mut after = self.claims(&self.pools, None);
        after.push(claim(&self.pools, definition));
        let refused = |why| format!("VM {} cannot be started: {why}", definition.name);
        self.admit(&self.pools, &after).map_err(|why| no_memory(refused(why)))
    }

    /// Whether a VM that runs may become what `definition` says.
    pub(super) fn admit_change(
        &self,
        before: &VmDefinition,
        definition: &VmDefinition,
        run: RunId,
    ) -> Result<(), Failure> {
        let mut after = self.claims(&self.pools, Some(run));
        after.push(claim(&self.pools, definition));
        let refused = |why: String| {
            let VmDefinition { name, reservation, pool, .. } = definition;
            no_memory(format!("VM {name} cannot have reservation {reservation} in pool {pool}: {why}"))
        };
        self.admit(&self.pools, &after).map_err(refused)?;
        if definition.reservation <= before.reservation {
            return Ok(());
        }
        let account = self.ledger.account(run);
        let unreserved = self.unreserved_but(run, definition);
        // What it holds already need not be free.
        let open = self.round().open(run);
        let open = open + self.charged(run) + account.overhead;
        admit(reservation(definition), account.overhead, unreserved, open)
            .map_err(|why| refused(why.to_string()))
    }

    /// Whether the host's pools may become `pools`.
    pub(super) fn admit_pools(&self, pools: &Pools) -> Result<(), String> {
        self.admit(pools, &self.claims(pools, None))?;
        let withheld = |pools: &Pools| self.round_among(pools).grants.withheld();
        let (before, after) = (withheld(&self.pools), withheld(pools));
        let free = self.ledger.free();
        if after > before && after > free {
            return Err(format!(
                "its VMs and others could then claim {} that they have not been granted, and only {} is free now: other VMs use \
                 it; try again when their balloons have given it back, or stop one",
                after.bytes(),
                free.bytes()
            ));
        }
        Ok(())
    }

    fn admit(&self, pools: &Pools, after: &[Claim]) -> Result<(), String> {
        let now = self.claims(&self.pools, None);
        let before = self.reservations(&self.pools, &now);
        before.admits(&self.reservations(pools, after)).map_err(|why| why.to_string())
    }

    /// What a VM that runs may reserve in its pool: at least its reservation, which was admitted.
    pub(super) fn unreserved_but(&self, run: RunId, definition: &VmDefinition) -> Pages {
        let others = self.claims(&self.pools, Some(run));
        let pool = place(&self.pools, &definition.pool);
        let unreserved = self.reservations(&self.pools, &others).unreserved(pool);
        unreserved.max(reservation(definition) + overhead(definition))
    }

    /// The same for the VM at `i` of the `claims` of all VMs that run.
    pub(super) fn unreserved_beside(
        &self,
        claims: &mut [Claim],
        i: usize,
        definition: &VmDefinition,
    ) -> Pages {
        let own = claims[i];
        let none = Claim { size: Pages::ZERO, reservation: Pages::ZERO, overhead: Pages::ZERO, ..own };
        claims[i] = none;
        let unreserved = self.reservations(&self.pools, claims).unreserved(own.pool);
        claims[i] = own;
        unreserved.max(reservation(definition) + overhead(definition))
    }

    /// The claims of all VMs that run, in the order of a [round](Self::round).
    pub(super) fn all_claims(&self) -> Vec<Claim> {
        self.claims(&self.pools, None)
    }

    /// What may still be reserved on the host and in each pool, by [`PoolId::index`].
    pub(super) fn all_unreserved(&self) -> Vec<Pages> {
        let claims = self.claims(&self.pools, None);
        self.reservations(&self.pools, &claims).all_unreserved()
    }

    /// Policy's name of a place.
    pub(super) fn place(&self, at: &Place) -> PoolId {
        place(&self.pools, at)
    }

    /// The claims of the VMs that run, without that of `run`.
    fn claims(&self, pools: &Pools, run: Option<RunId>) -> Vec<Claim> {
        let others = self.running().filter(|(_, other)| Some(other.id) != run);
        others.map(|(definition, _)| claim(pools, definition)).collect()
    }

    fn reservations<'a>(&self, pools: &'a Pools, vms: &'a [Claim]) -> Reservations<'a> {
        // The budget is more while VMs have yet to give back what other programs have taken: that
        // is nothing to promise.
        let (machine, swap) = (self.ledger.sustained(), self.settings.swap);
        Reservations { machine, swap, pools: pools.tree(), vms }
    }

    /// Swap space that the VMs that run have reserved. Where VMs get none, those that started
    /// before may have some.
    pub(super) fn swap_reserved(&self) -> Pages {
        let swaps = self.settings.no_swap.is_none();
        self.running()
            .map(|(vm, run)| if swaps { size(vm).saturating_sub(reservation(vm)) } else { run.swap })
            .sum()
    }
}

fn claim(pools: &Pools, definition: &VmDefinition) -> Claim {
    Claim {
        pool: place(pools, &definition.pool),
        size: size(definition),
        reservation: reservation(definition),
        overhead: overhead(definition),
    }
}

/// Every VM's pool exists.
fn place(pools: &Pools, place: &Place) -> PoolId {
    pools.id(place).unwrap_or(PoolId::ROOT)
}

fn no_memory(text: String) -> Failure {
    Failure::new(FailureKind::NoMemory, text)
}
