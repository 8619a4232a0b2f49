use plimsoll_policy as policy;
use plimsoll_policy::{PoolId, Reclaim};
use plimsoll_protocol::control::SamplingFacts;
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_protocol::explain::{
    ActivityEstimate, ActivityParts, Cause, Change, Holder, HostDecision, HostExplanation, Mechanism,
    MechanismKind, PoolExplanation, Remedy, Reserved, Shortfall, StateThresholds, ToStart, VmDecision,
    VmExplanation, VmShare,
};
use plimsoll_protocol::status::{PoolStatus, VmStatus};
use plimsoll_protocol::{Place, PoolName, TaxRate, VmName};
use plimsoll_units::{Bytes, PAGE_SIZE, Pages};

use super::divide::Divided;
use super::grants::Round;
use super::run::Run;
use super::{Answer, Core, Failure, overhead, reservation, size};
use crate::pools::Pools;

/// An explanation of one VM that lacks only its remedies: to find them, memory is divided some
/// hundred times over, and the daemon has other things to do.
#[derive(Clone, Debug)]
pub(crate) struct Explained {
    explanation: VmExplanation,
    divided: Divided,
    pools: Pools,
    index: Option<usize>,
}

impl PartialEq for Explained {
    fn eq(&self, other: &Self) -> bool {
        self.explanation == other.explanation
    }
}

impl Explained {
    /// The explanation with its remedies.
    pub(crate) fn finish(self) -> VmExplanation {
        let Self { mut explanation, divided, pools, index } = self;
        if let Some(index) = index {
            let more = Pages::ceil(explanation.more);
            let Divided { rules, host, vms, .. } = &divided;
            let remedies = policy::remedies(rules, host, pools.tree(), vms, index, more);
            explanation.remedies = remedies.iter().filter_map(|r| remedy(&pools, r)).collect();
        }
        explanation
    }
}

/// Explains how memory is divided. Memory is divided anew first, so that every number follows from
/// the ledger as it is now.
impl Core {
    pub(super) fn explain_host(&mut self) -> HostExplanation {
        let divided = self.divide(std::time::Duration::ZERO);
        let round = self.round();
        let share = |(definition, run): (&VmDefinition, &Run)| {
            let vm = self.status(&definition.name)?;
            let decision = self.decision(&divided, &round, run, &vm);
            Some(VmShare { vm, decision })
        };
        let (table, unreserved) = (self.pool_table(), self.all_unreserved());
        let explained = |pool| self.pool_explanation(&divided, &unreserved, pool);
        HostExplanation {
            at: self.clock.at,
            host: self.host_status(&table),
            decision: self.host_decision(&divided),
            pools: self.all_pools(&table).into_iter().map(explained).collect(),
            vms: self.running().filter_map(share).collect(),
        }
    }

    pub(super) fn explain_vm(&mut self, name: &VmName) -> Result<Answer, Failure> {
        self.must_know(name)?;
        let divided = self.divide(std::time::Duration::ZERO);
        let (vm, definition) = (self.must_status(name)?, &self.must_know(name)?.record.definition);
        let index = divided.names.binary_search(name).ok();
        let (run, round) = (self.run_of(name), self.round());
        let decision = run.and_then(|run| {
            let withheld_for = self.withheld_for(&round, run);
            Some(VmDecision { withheld_for, ..self.decision(&divided, &round, run, &vm)? })
        });
        let (table, unreserved) = (self.pool_table(), self.all_unreserved());
        let up = self.pools.up_from(&definition.pool).map(|pool| self.pool_status(&table, &pool.name));
        let explanation = VmExplanation {
            at: self.clock.at,
            host: self.host_status(&table),
            host_decision: self.host_decision(&divided),
            activity: run.map_or(NO_ACTIVITY, |run| self.activity(definition, run)),
            pools: up.map(|pool| self.pool_explanation(&divided, &unreserved, pool)).collect(),
            start: run.is_none().then(|| ToStart {
                reservation: reservation(definition).bytes(),
                overhead: overhead(definition).bytes(),
                unreserved: unreserved[self.place(&definition.pool).index()].bytes(),
            }),
            more: decision.as_ref().map_or(Bytes::ZERO, |d| more(&vm.grant, &vm.wanted, d)),
            decision,
            remedies: Vec::new(),
            vm,
        };
        let explained = Explained { explanation, divided, pools: self.pools.clone(), index };
        Ok(Answer::Explained(Box::new(explained)))
    }

    fn host_decision(&self, divided: &Divided) -> HostDecision {
        let Divided { rules, host, outcome, .. } = divided;
        let policy::Thresholds { high, clear, soft, hard, low } = host.thresholds;
        let shortfall = |s: &policy::Shortfall| Shortfall {
            place: place(&self.pools, s.pool),
            reserved: s.reserved.bytes(),
            has: s.has.bytes(),
        };
        HostDecision {
            thresholds: StateThresholds {
                high: high.bytes(),
                clear: clear.bytes(),
                soft: soft.bytes(),
                hard: hard.bytes(),
                low: low.bytes(),
            },
            tax: rate(rules.tax),
            largest_balloon: rules.largest_balloon,
            available: outcome.available.bytes(),
            owed: outcome.owed.bytes(),
            reclaiming: outcome.reclaiming,
            strained: host.strained,
            shortage: outcome.shortage.bytes(),
            level: in_bytes(outcome.pools[PoolId::ROOT.index()].level),
            shortfalls: outcome.shortfalls.iter().map(shortfall).collect(),
        }
    }

    /// Explains a pool, where `unreserved` is what each can still promise.
    fn pool_explanation(&self, divided: &Divided, unreserved: &[Pages], pool: PoolStatus) -> PoolExplanation {
        let id = self.pools.id(&Place::In(pool.name.clone()));
        let outcome = id.map(|id| divided.outcome.pools[id.index()]);
        PoolExplanation {
            unreserved: id.map_or(Pages::ZERO, |id| unreserved[id.index()]).bytes(),
            target: outcome.map_or(Bytes::ZERO, |o| o.target.bytes()),
            level: in_bytes(outcome.map_or(0.0, |o| o.level)),
            pool,
        }
    }

    /// The decision for a VM; `None`: memory is not divided for it.
    fn decision(&self, divided: &Divided, round: &Round, run: &Run, status: &VmStatus) -> Option<VmDecision> {
        let index = divided.names.binary_search(&run.vm).ok()?;
        let i = round.index(run.id)?;
        let paging = &status.paging;
        let (vm, decision) = (&divided.vms[index], &divided.outcome.vms[index]);
        let client = &vm.member.client;
        let Reclaim { balloon, compression, swap, block } = decision.reclaim;
        let mechanism = |kind, to_take: Pages, taken| Mechanism { kind, to_take: to_take.bytes(), taken };
        Some(VmDecision {
            entitlement: decision.entitlement.bytes(),
            lent: decision.lent.bytes(),
            cause: cause(&self.pools, decision.cause, client.limit < vm.size),
            tax: rate(vm.member.tax.unwrap_or(divided.rules.tax)),
            active: client.active.bytes(),
            pays: in_bytes(decision.pays),
            level: in_bytes(divided.outcome.pools[vm.member.pool.index()].level),
            guaranteed: decision.bounds.reservation.bytes(),
            ceiling: decision.bounds.limit.bytes(),
            working_set: decision.working_set.bytes(),
            target: decision.target.bytes(),
            most: decision.most.bytes(),
            above_target: vm.held.saturating_sub(decision.target).bytes(),
            reclaim: vec![
                mechanism(MechanismKind::Balloon, balloon, status.ballooned),
                mechanism(
                    MechanismKind::Compression,
                    compression,
                    paging.compressed.saturating_sub(paging.store),
                ),
                mechanism(MechanismKind::Swap, swap, paging.swapped),
                mechanism(MechanismKind::Block, block, Bytes::ZERO),
            ],
            balloon: decision.sizing,
            withheld: round.grants.withheld_from_vm(i).bytes(),
            withheld_for: Vec::new(),
            left: round.grants.leaves(i).bytes(),
        })
    }

    /// The VMs and pools for which memory is withheld from a VM, the largest part first.
    fn withheld_for(&self, round: &Round, run: &Run) -> Vec<Reserved> {
        let Some(i) = round.index(run.id) else { return Vec::new() };
        // A round's parties are the VMs that run, in their order.
        let names: Vec<&VmName> = self.running().map(|(definition, _)| &definition.name).collect();
        let reserved = |(holder, amount): (policy::Holder, Pages)| {
            let holder = match holder {
                policy::Holder::Vm(i) => Holder::Vm(names[i].clone()),
                policy::Holder::Pool(id) => Holder::Pool(named(&self.pools, id)?),
            };
            Some(Reserved { holder, amount: amount.bytes() })
        };
        let mut all: Vec<Reserved> = round.grants.withheld_for(i).into_iter().filter_map(reserved).collect();
        all.sort_by_key(|reserved| std::cmp::Reverse(reserved.amount));
        all
    }

    fn estimate(run: &Run) -> Option<ActivityEstimate> {
        let SamplingFacts { now, .. } = run.facts.sampling;
        let estimate = run.estimate();
        run.usage.has_samples().then(|| ActivityEstimate {
            slow: estimate.slow.bytes(),
            fast: estimate.fast.bytes(),
            now: estimate.now.bytes(),
            margin: estimate.margin.bytes(),
            chunks: now.chunks,
            pages: now.pages,
            inside: now.inside,
            arrived: now.arrived.bytes(),
        })
    }

    fn activity(&self, definition: &VmDefinition, run: &Run) -> ActivityParts {
        ActivityParts {
            active: self.active(run).bytes(),
            estimate: Self::estimate(run),
            used: run.spare.used(size(definition)).map(Pages::bytes),
            waits: run.wanted.bytes(),
            missing: run.need.missing().bytes(),
        }
    }
}

const NO_ACTIVITY: ActivityParts = ActivityParts {
    active: Bytes::ZERO,
    estimate: None,
    used: None,
    waits: Bytes::ZERO,
    missing: Bytes::ZERO,
};

/// How much more memory remedies should bring a VM: what it waits for, or a quarter of its
/// entitlement if it does not wait.
fn more(grant: &Bytes, wanted: &Bytes, decision: &VmDecision) -> Bytes {
    let needs = grant.saturating_add(*wanted).saturating_sub(decision.entitlement);
    if *wanted > Bytes::ZERO && needs > Bytes::ZERO {
        needs
    } else {
        Bytes(decision.entitlement.0 / 4).max(Bytes::mib(2))
    }
}

/// Pages that a share pays, in bytes.
fn in_bytes(pages: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "4096")]
    let page = PAGE_SIZE as f64;
    pages * page
}

fn rate(tax: policy::Tax) -> TaxRate {
    TaxRate::try_from(tax.rate()).expect("policy and protocol allow the same taxes")
}

fn place(pools: &Pools, id: PoolId) -> Place {
    named(pools, id).map_or(Place::Root, Place::In)
}

fn named(pools: &Pools, id: PoolId) -> Option<PoolName> {
    pools.tree().name(id)?.parse().ok()
}

fn cause(pools: &Pools, cause: policy::Cause, limited: bool) -> Cause {
    let pool = |id, cause: fn(PoolName) -> Cause| named(pools, id).map_or(Cause::Level, cause);
    match cause {
        policy::Cause::Reservation => Cause::Reservation,
        policy::Cause::Limit if limited => Cause::Limit,
        policy::Cause::Limit => Cause::Size,
        policy::Cause::PoolReservation(id) => pool(id, Cause::PoolReservation),
        policy::Cause::PoolLimit(id) => pool(id, Cause::PoolLimit),
        policy::Cause::Level => Cause::Level,
        policy::Cause::Shortfall(id) => Cause::Shortfall(place(pools, id)),
    }
}

fn remedy(pools: &Pools, remedy: &policy::Remedy) -> Option<Remedy> {
    let change = match remedy.change {
        policy::Change::Active(pages) => Change::Active(pages.bytes()),
        policy::Change::Untaxed => Change::Untaxed,
        policy::Change::Limit(pages) => Change::Limit(pages.bytes()),
        policy::Change::Size(pages) => Change::Size(pages.bytes()),
        policy::Change::Shares(shares) => Change::Shares(shares),
        policy::Change::Reservation(pages) => Change::Reservation(pages.bytes()),
        policy::Change::PoolLimit(id, pages) => Change::PoolLimit(named(pools, id)?, pages.bytes()),
        policy::Change::PoolShares(id, shares) => Change::PoolShares(named(pools, id)?, shares),
        policy::Change::PoolReservation(id, pages) => {
            Change::PoolReservation(named(pools, id)?, pages.bytes())
        }
        policy::Change::Memory(pages) => Change::Memory(pages.bytes()),
    };
    Some(Remedy { change, entitlement: remedy.entitlement.bytes() })
}
