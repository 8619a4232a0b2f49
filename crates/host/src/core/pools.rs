use plimsoll_protocol::change::PoolChange;
use plimsoll_protocol::pool::PoolDefinition;
use plimsoll_protocol::{Place, PoolName};

use super::{Answer, Core, Effect, Failure, FailureKind, RequestId};
use crate::inventory::Record;
use crate::pools::Pools;

/// Requests about resource pools. A change is checked on a copy of all pools. The copy replaces
/// them only if the check succeeds.
impl Core {
    pub(super) fn create_pool(&mut self, id: RequestId, definition: PoolDefinition) -> Result<(), Failure> {
        let name = definition.name.clone();
        if self.pools.get(&name).is_some() {
            let text = format!("pool {name}: name {name} is taken: choose another, or change that one");
            return Err(Failure::new(FailureKind::Conflict, text));
        }
        self.change_pools(id, definition, "is made")
    }

    pub(super) fn change_pool(
        &mut self,
        id: RequestId,
        name: &PoolName,
        change: &PoolChange,
    ) -> Result<(), Failure> {
        let definition = self.must_know_pool(name)?.changed(change);
        self.change_pools(id, definition, "is changed")
    }

    pub(super) fn remove_pool(&mut self, id: RequestId, name: &PoolName) -> Result<(), Failure> {
        self.must_know_pool(name)?;
        let status = self.pool_status(&self.pool_table(), name);
        let pools = status.pools.iter().map(|pool| format!("pool {pool}"));
        let vms = status.vms.iter().map(|vm| format!("VM {vm}"));
        let held: Vec<String> = pools.chain(vms).collect();
        if !held.is_empty() {
            let text =
                format!("pool {name} still holds {}: move or remove them first", some_of(&held, MOST_NAMED));
            return Err(Failure::new(FailureKind::Conflict, text));
        }
        self.pools = self.pools.without(name).map_err(|e| Failure::new(FailureKind::Conflict, e))?;
        self.event(None, format!("pool {name} is removed"));
        self.pools_changed(id, Answer::Done);
        Ok(())
    }

    pub(super) fn pool_answer(&self, name: &PoolName) -> Result<Answer, Failure> {
        self.must_know_pool(name)?;
        Ok(Answer::Pool(Box::new(self.pool_status(&self.pool_table(), name))))
    }

    /// Checks that there is a pool at `place`, for a VM or another pool.
    pub(super) fn must_be_place(&self, place: &Place) -> Result<(), Failure> {
        match place.pool() {
            Some(pool) if self.pools.get(pool).is_none() => {
                Err(Failure::new(FailureKind::Invalid, format!("pool {pool}: {}", no_pool())))
            }
            _ => Ok(()),
        }
    }

    /// Puts `definition` in place of the pool of its name, or beside the others.
    fn change_pools(&mut self, id: RequestId, definition: PoolDefinition, verb: &str) -> Result<(), Failure> {
        let name = definition.name.clone();
        let invalid = |text| Failure::new(FailureKind::Invalid, text);
        let text = format!("pool {name} {verb}: {}", settings(&definition));
        let pools = self.pools.with(definition).map_err(invalid)?;
        self.admit_pools(&pools)
            .map_err(|why| Failure::new(FailureKind::NoMemory, format!("pool {name}: {why}")))?;
        self.pools = pools;
        self.event(None, text);
        // The answer shows what follows from the change.
        self.control();
        let answer = Answer::Pool(Box::new(self.pool_status(&self.pool_table(), &name)));
        self.pools_changed(id, answer);
        Ok(())
    }

    fn pools_changed(&mut self, id: RequestId, answer: Answer) {
        let all = self.pools.all().cloned().collect();
        self.effect(Effect::SavePools(all, vec![(id, Ok(answer))]));
    }

    fn must_know_pool(&self, name: &PoolName) -> Result<&PoolDefinition, Failure> {
        let unknown = || Failure::new(FailureKind::Unknown, format!("pool {name}: {}", no_pool()));
        self.pools.get(name).ok_or_else(unknown)
    }
}

/// A VM whose pool does not exist, because the file of all pools is lost or it was removed, is
/// placed in none. The record keeps the pool's name, for when it is back.
pub(super) fn place(record: &mut Record, pools: &Pools) {
    let Record { definition, lost_pool, .. } = record;
    if definition.pool.is_root()
        && let Some(pool) = lost_pool.take_if(|pool| pools.get(pool).is_some())
    {
        definition.pool = Place::In(pool);
    }
    if pools.id(&definition.pool).is_none() {
        tracing::error!(vm = %definition.name, "there is no pool {}: it is on the host itself now", definition.pool);
        *lost_pool = definition.pool.pool().cloned();
        definition.pool = Place::Root;
    }
}

/// Most names in one error, which must stay one line.
const MOST_NAMED: usize = 8;

fn some_of(names: &[String], most: usize) -> String {
    match names.len().checked_sub(most) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..most].join(", ")),
    }
}

fn no_pool() -> &'static str {
    "no such pool: see plimsoll pool ls (/ is the host itself)"
}

fn settings(pool: &PoolDefinition) -> String {
    let PoolDefinition { parent, shares, reservation, limit, expandable, .. } = pool;
    plimsoll_words::pool::settings(parent, shares, *reservation, *limit, *expandable)
}
