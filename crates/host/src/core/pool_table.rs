use std::collections::BTreeMap;

use plimsoll_protocol::pool::PoolDefinition;
use plimsoll_protocol::status::PoolStatus;
use plimsoll_protocol::{Place, PoolName, VmName};
use plimsoll_units::{Bytes, Pages};

use super::{Core, reservation};

/// What each pool and the host hold, at one moment. All VMs are looked at once for all pools: there
/// may be a thousand of both.
#[derive(Debug, Default)]
pub(super) struct PoolTable(BTreeMap<Place, Row>);

#[derive(Debug, Default)]
struct Row {
    /// Reserved by VMs that run and by pools, directly here.
    reserved: Pages,
    /// Of the VMs here and in the pools below.
    entitled: Pages,
    /// Likewise.
    granted: Pages,
    /// Directly here, by name.
    pools: Vec<PoolName>,
    /// Likewise.
    vms: Vec<VmName>,
}

impl PoolTable {
    fn row(&mut self, place: &Place) -> &mut Row {
        self.0.entry(place.clone()).or_default()
    }

    /// What VMs that run and pools have reserved directly at `place`.
    pub(super) fn reserved(&self, place: &Place) -> Pages {
        self.0.get(place).map_or(Pages::ZERO, |row| row.reserved)
    }

    /// All pools, parents before their children.
    pub(super) fn names(&self) -> Vec<PoolName> {
        let below = |place: &Place| self.0.get(place).into_iter().flat_map(|row| row.pools.iter().rev());
        let (mut names, mut next) = (Vec::new(), below(&Place::Root).cloned().collect::<Vec<_>>());
        while let Some(name) = next.pop() {
            next.extend(below(&Place::In(name.clone())).cloned());
            names.push(name);
        }
        names
    }
}

impl Core {
    /// What each pool holds now.
    pub(super) fn pool_table(&self) -> PoolTable {
        let mut table = PoolTable::default();
        self.pools.all().for_each(|pool| table.row(&pool.parent).pools.push(pool.name.clone()));
        for vm in self.vms.values() {
            let definition = &vm.record.definition;
            table.row(&definition.pool).vms.push(definition.name.clone());
        }
        for (definition, run) in self.running() {
            table.row(&definition.pool).reserved += reservation(definition);
            let charged = self.charged(run.id);
            for pool in self.pools.up_from(&definition.pool) {
                let row = table.row(&Place::In(pool.name.clone()));
                row.entitled += run.decided.entitlement;
                row.granted += charged;
            }
        }
        // What children reserve is known before their parents' turn.
        for name in table.names().iter().rev() {
            let Some(pool) = self.pools.get(name) else { continue };
            let (own, inside) = (Pages::ceil(pool.reservation), table.reserved(&Place::In(name.clone())));
            let reserves = if pool.expandable { own.max(inside) } else { own };
            table.row(&pool.parent).reserved += reserves;
        }
        table
    }

    /// All pools as `table` has them, parents before their children.
    pub(super) fn all_pools(&self, table: &PoolTable) -> Vec<PoolStatus> {
        table.names().iter().map(|name| self.pool_status(table, name)).collect()
    }

    /// A pool as `table` has it.
    pub(super) fn pool_status(&self, table: &PoolTable, name: &PoolName) -> PoolStatus {
        let (definition, none) = (self.pools.get(name), Row::default());
        let row = table.0.get(&Place::In(name.clone())).unwrap_or(&none);
        PoolStatus {
            name: name.clone(),
            parent: definition.map(|d| d.parent.clone()).unwrap_or_default(),
            shares: definition.map(|d| d.shares).unwrap_or_default(),
            share_count: definition.map_or(0, PoolDefinition::share_count),
            reservation: definition.map_or(Bytes::ZERO, |d| d.reservation),
            limit: definition.and_then(|d| d.limit),
            expandable: definition.is_some_and(|d| d.expandable),
            reserved: row.reserved.bytes(),
            entitled: row.entitled.bytes(),
            granted: row.granted.bytes(),
            pools: row.pools.clone(),
            vms: row.vms.clone(),
        }
    }
}
