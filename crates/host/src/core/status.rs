use plimsoll_protocol::definition::VmDefinition;
use plimsoll_protocol::status::{BalloonHealth, HostStatus, PagingStatus, Power, VmStatus};
use plimsoll_protocol::{Place, VmName};
use plimsoll_units::{Bytes, PAGE_SIZE, Pages};

use super::devices;
use super::pool_table::PoolTable;
use super::run::{Phase, Run};
use super::unsaved::unsaved_note;
use super::{Core, Overview, Vm, limit, overhead};

/// The state of the host and of VMs, for users.
impl Core {
    /// What the host does, in a few words.
    pub(crate) fn summary(&self) -> String {
        format!("state {}, {} of {} VMs on", self.states.current(), self.runs.len(), self.vms.len())
    }

    /// The state of the host; `pools` is that of now.
    pub(super) fn host_status(&self, pools: &PoolTable) -> HostStatus {
        let sum = |part: fn(&Run) -> Pages| self.running().map(|(_, run)| part(run)).sum::<Pages>().bytes();
        let waits = |run: &Run| matches!(run.phase, Phase::Queued(_));
        let queued: Pages = self.running().filter(|(_, run)| waits(run)).map(|(vm, _)| overhead(vm)).sum();
        HostStatus {
            budget: self.ledger.budget().bytes(),
            taken: self.ledger.taken().bytes(),
            granted: self.ledger.granted().bytes(),
            overhead: self.ledger.overhead().bytes(),
            frames: self.ledger.frames().bytes(),
            shared: self.running().map(|(_, run)| self.references(run.id)).sum::<Pages>().bytes(),
            zero: sum(|run| run.facts.zero),
            free: self.ledger.free().bytes(),
            reserved: (pools.reserved(&Place::Root) + self.ledger.overhead() + queued).bytes(),
            swapping: self.settings.no_swap.is_none(),
            no_swap: self.settings.no_swap.clone(),
            swap: self.settings.swap.map(Pages::bytes),
            swap_reserved: self.swap_reserved().bytes(),
            swapped: sum(|run| run.facts.swapped),
            compressed: sum(|run| run.facts.compressed),
            store: sum(|run| run.facts.store),
            blocked: self.running().filter(|(_, run)| run.facts.blocked).count() as u64,
            held: sum(|run| run.facts.held),
            ballooned: sum(|run| run.facts.ballooned),
            kernel: self.running().map(|(_, run)| run.kernel.ram).sum(),
            peak_ledger: self.ledger.peak().bytes(),
            peak_kernel: self.peak_kernel,
            state: self.states.current(),
            high_threshold: self.settings.thresholds.clear.bytes(),
            stall: self.host_stall(),
            stalled: self.standing_still(),
            running: self.runs.len() as u64,
            turns: self.turns,
            image_directory: Some(self.settings.paths.images.clone()),
            disk_directory: Some(self.settings.paths.disks()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    pub(super) fn overview(&self) -> Overview {
        let pools = self.pool_table();
        Overview { host: self.host_status(&pools), vms: self.all_status(), pools: self.all_pools(&pools) }
    }

    /// The note for users about a VM, in one line.
    fn note(&self, vm: &Vm) -> Option<String> {
        let unread = vm.unread.as_ref().map(|unread| unread.why.clone());
        let unsaved = self.unsaved.get(&Some(vm.record.definition.name.clone())).map(|why| unsaved_note(why));
        let run = vm.run.and_then(|run| self.run(run));
        let unreachable = run.and_then(|run| self.unreachable_note(run));
        let silent = run.and_then(Self::silence_note);
        let above = run.and_then(|run| self.above_limit_note(&vm.record.definition, run));
        let remarks = run.map(|run| run.remarks.clone()).unwrap_or_default();
        let notes = [unreachable, silent, unread, unsaved, above].into_iter().flatten().chain(remarks);
        let notes: Vec<String> = notes.collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    /// The note about a VM that holds more than its limit, which was lowered.
    pub(super) fn above_limit_note(&self, definition: &VmDefinition, run: &Run) -> Option<String> {
        let held = self.charged(run.id);
        let above = held.checked_sub(limit(definition)).filter(|above| *above > Pages::ZERO)?;
        let takeable = self.party(definition, run).takeable(&self.settings.rules);
        let stays = match above.saturating_sub(takeable) {
            Pages::ZERO => String::new(),
            stays => format!(", and nothing can take {} of that now", stays.bytes()),
        };
        Some(format!("it holds {}, {} more than its limit{stays}", held.bytes(), above.bytes()))
    }

    pub(super) fn all_status(&self) -> Vec<VmStatus> {
        self.vms.values().map(|vm| self.status_of(vm)).collect()
    }

    pub(super) fn status(&self, name: &VmName) -> Option<VmStatus> {
        self.vm(name).map(|vm| self.status_of(vm))
    }

    fn status_of(&self, vm: &Vm) -> VmStatus {
        let definition = &vm.record.definition;
        let run = vm.run.and_then(|run| self.run(run));
        let account = run.map(|run| self.ledger.account(run.id)).unwrap_or_default();
        let facts = run.map(|run| run.facts).unwrap_or_default();
        let pages = |part: fn(&Run) -> Pages| run.map_or(Bytes::ZERO, |run| part(run).bytes());
        VmStatus {
            name: definition.name.clone(),
            power: power(run),
            exit: vm.record.exit.clone(),
            pid: run.and_then(|run| run.pid),
            model: definition.boot.model,
            vcpus: definition.vcpus,
            size: definition.size,
            reservation: definition.reservation,
            limit: definition.limit(),
            shares: definition.shares,
            share_count: definition.shares.resolve(definition.size),
            pool: definition.pool.clone(),
            autostart: definition.autostart,
            start_order: definition.start_order,
            start_delay: definition.start_delay,
            labels: definition.labels.clone(),
            tax: definition.tax,
            disks: devices::disks(definition),
            nets: devices::nets(definition, &facts),
            grant: account.grant.bytes(),
            overhead: account.overhead.bytes(),
            held: facts.held.bytes(),
            kernel: run.map_or(Bytes::ZERO, |run| run.kernel.ram),
            wanted: pages(Run::waits),
            stall: run.map(|run| run.stall.status()).unwrap_or_default(),
            stalled: run.and_then(|run| self.standstill(definition, run)),
            active: run.map_or(Bytes::ZERO, |run| self.active(run).bytes()),
            entitlement: pages(|run| run.decided.entitlement),
            target: pages(|run| run.decided.target),
            ballooned: facts.ballooned.bytes(),
            balloon_target: pages(|run| run.balloon),
            balloon: run.map_or(BalloonHealth::Absent, |run| run.liveness.health()),
            paging: run.map(paging).unwrap_or_default(),
            sharing: self.sharing_of(definition, run),
            chunks: facts.chunks,
            faults: facts.faults,
            reboots: facts.reboots,
            guest: facts.guest,
            missing_jail: run.map(|run| run.missing_jail.clone()).unwrap_or_default(),
            note: self.note(vm),
            started: vm.record.started,
            console: self.settings.paths.console_socket(&definition.name),
            vsock: definition.vsock.map(|_| self.settings.paths.vsock_socket(&definition.name)),
        }
    }
}

fn paging(run: &Run) -> PagingStatus {
    let facts = &run.facts;
    let bytes = |pages: u64| Bytes(pages.saturating_mul(PAGE_SIZE));
    PagingStatus {
        compressed: facts.compressed.bytes(),
        store: facts.store.bytes(),
        swapped: facts.swapped.bytes(),
        space: run.swap.bytes(),
        zipped: bytes(facts.zipped),
        unzipped: bytes(facts.unzipped),
        swapped_out: bytes(facts.swapped_out),
        swapped_in: bytes(facts.swapped_in),
        out_rate: bytes(run.rates.swapped_out),
        in_rate: bytes(run.rates.swapped_in),
        level: run.paging.level.map(Pages::bytes),
        why: run.paging_cause,
        blocked: facts.blocked,
        stuck: facts.paging_stuck,
        failed: facts.swap_failed,
    }
}

fn power(run: Option<&Run>) -> Power {
    match run.map(|run| &run.phase) {
        None => Power::Off,
        Some(Phase::Queued(_) | Phase::Launching(_) | Phase::Booting(_)) => Power::Starting,
        Some(Phase::Running | Phase::Stopping) if run.is_some_and(|run| run.facts.paused) => Power::Paused,
        Some(Phase::Running | Phase::Unreachable(_)) => Power::On,
        Some(Phase::Stopping | Phase::Ending(_)) => Power::Stopping,
    }
}
