//! The course of a host and its VMs, look by look.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_policy::State;
use plimsoll_protocol::status::HostStatus;
use plimsoll_units::Bytes;

use super::look::Look;

/// What circulates while a VM's balloon grows, by `plimsoll_policy::CIRCULATING`: the VM may have
/// it whatever others wait for.
const CIRCULATING: Bytes = Bytes(plimsoll_policy::CIRCULATING.0 * plimsoll_units::PAGE_SIZE);

/// What was seen of a host and its VMs.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// Milliseconds in which the host's status came.
    answers: Vec<f64>,
    /// Free memory in MiB.
    free: Vec<f64>,
    /// How many VMs waited.
    waiting: Vec<f64>,
    /// How many of those below their entitlements.
    below: Vec<f64>,
    /// What all VMs together had beyond their entitlements, in MiB.
    beyond: Vec<f64>,
    /// How often the state was hard or low.
    below_soft: u32,
    last: Vec<Look>,
    stretches: BTreeMap<String, Stretch>,
    /// What the VM that gained the most has gained; see [`Course::gain`].
    gained: Option<(String, Bytes)>,
}

/// A time in which a VM was above its entitlement while another was owed memory.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// The least that it had.
    least: Bytes,
}

impl Course {
    /// The host was as `host` says, which took `answered` to come, and its VMs were as in `looks`.
    pub(super) fn observe(&mut self, host: &HostStatus, answered: Duration, looks: Vec<Look>) {
        self.answers.push(answered.as_secs_f64() * 1000.0);
        self.free.push(super::in_mib(host.free));
        self.below_soft += u32::from(host.state > State::Soft);
        self.see(looks);
    }

    fn see(&mut self, looks: Vec<Look>) {
        let owed = looks.iter().filter(|vm| vm.is_owed()).count();
        self.waiting.push(count(looks.iter().filter(|vm| vm.waits).count()));
        self.below.push(count(owed));
        let beyond = looks.iter().map(|vm| vm.charge.saturating_sub(vm.entitlement)).sum();
        self.beyond.push(super::in_mib(beyond));
        // A VM that is owed memory in one look may have got it meanwhile, before another gained.
        let was_owed = self
            .last
            .iter()
            .any(|before| before.is_owed() && looks.iter().any(|vm| vm.name == before.name && vm.is_owed()));
        let stretches = std::mem::take(&mut self.stretches);
        for vm in looks.iter().filter(|vm| vm.is_above() && was_owed) {
            let before = self.last.iter().find(|before| before.name == vm.name);
            let begin = before.map_or(vm.charge, |before| before.charge.max(before.entitlement));
            let stretch = stretches.get(&vm.name).copied().unwrap_or(Stretch { least: begin });
            let leeway = if vm.inflates { CIRCULATING } else { Bytes::ZERO };
            let gain = vm.charge.saturating_sub(stretch.least).saturating_sub(leeway);
            if gain > self.gain() {
                self.gained = Some((vm.name.clone(), gain));
            }
            self.stretches.insert(vm.name.clone(), Stretch { least: stretch.least.min(vm.charge) });
        }
        self.last = looks;
    }

    /// Returns the most that a VM above its entitlement has gained while the same other VM was owed
    /// memory. What circulates while its balloon grows does not count.
    pub(super) fn gain(&self) -> Bytes {
        self.gained.as_ref().map_or(Bytes::ZERO, |(_, gain)| *gain)
    }

    pub(super) fn answers(&self) -> &[f64] {
        &self.answers
    }

    pub(super) fn free(&self) -> &[f64] {
        &self.free
    }

    pub(super) fn waiting(&self) -> &[f64] {
        &self.waiting
    }

    pub(super) fn below(&self) -> &[f64] {
        &self.below
    }

    pub(super) fn beyond(&self) -> &[f64] {
        &self.beyond
    }

    /// Returns in how many looks the state was hard or low.
    pub(super) fn below_soft(&self) -> u32 {
        self.below_soft
    }

    /// Returns the VMs as they were last.
    pub(super) fn last(&self) -> &[Look] {
        &self.last
    }

    /// Returns the VMs that tell the most: the one that gained, the one that has the most beyond
    /// its entitlement, and the one that is owed the most.
    pub(super) fn conspicuous(&self) -> Vec<String> {
        let above = self.last.iter().max_by_key(|vm| vm.charge.saturating_sub(vm.entitlement));
        let owed = self.last.iter().filter(|vm| vm.is_owed());
        let owed = owed.max_by_key(|vm| vm.entitlement.saturating_sub(vm.charge));
        let gained = self.gained.iter().map(|(name, _)| name.clone());
        let mut names: Vec<String> =
            gained.chain(above.into_iter().chain(owed).map(|vm| vm.name.clone())).collect();
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }

    /// Returns the last look in a line.
    pub(super) fn line(&self, host: &HostStatus) -> String {
        let last = |series: &[f64]| series.last().copied().unwrap_or(0.0);
        format!(
            "state {}, free {}, {} VMs wait, {} of them below their entitlements; {:.1} MiB held beyond entitlements; answer in {:.2} ms",
            host.state,
            host.free,
            last(&self.waiting),
            last(&self.below),
            last(&self.beyond),
            last(&self.answers)
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred VMs")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entitled to 30 MiB.
    fn vm(name: &str, charge: u64, waits: bool) -> Look {
        let (charge, entitlement) = (Bytes::mib(charge), Bytes::mib(30));
        Look { name: name.to_owned(), charge, entitlement, waits, inflates: false }
    }

    fn gain(looks: &[[Look; 2]]) -> Bytes {
        let mut course = Course::default();
        looks.iter().for_each(|looks| course.see(looks.to_vec()));
        course.gain()
    }

    #[test]
    fn a_gain_counts_while_another_vm_is_owed_memory() {
        let owed = || vm("b", 20, true);
        let rises = |other: fn() -> Look| gain(&[34, 32, 36].map(|charge| [vm("a", charge, true), other()]));
        assert_eq!(rises(|| vm("b", 20, true)), Bytes::mib(4), "from the least that it had");
        assert_eq!(rises(|| vm("b", 20, false)), Bytes::ZERO, "the other VM wants nothing");
        assert_eq!(rises(|| vm("b", 29, true)), Bytes::ZERO, "the other VM has what it is entitled to");
        assert_eq!(
            gain(&[[vm("a", 20, true), owed()], [vm("a", 32, true), owed()]]),
            Bytes::mib(2),
            "up to its entitlement it was owed memory itself"
        );
        let fed = vm("b", 30, true);
        assert_eq!(gain(&[[vm("a", 34, true), owed()], [vm("a", 36, true), fed]]), Bytes::ZERO);
    }

    #[test]
    fn what_circulates_while_a_balloon_grows_is_no_gain() {
        let look = |charge| [Look { inflates: true, ..vm("a", charge, true) }, vm("b", 20, true)];
        assert_eq!(gain(&[look(32), look(36)]), Bytes::ZERO);
        assert_eq!(gain(&[look(32), look(37)]), Bytes::mib(1));
    }

    #[test]
    fn those_that_stand_out_are_named() {
        let mut course = Course::default();
        course.see(vec![vm("a", 31, true), vm("b", 20, true), vm("c", 40, false), vm("d", 10, true)]);
        assert_eq!(course.conspicuous(), ["c", "d"]);
        course.see(vec![vm("a", 33, true), vm("b", 20, true), vm("c", 40, false), vm("d", 10, true)]);
        assert_eq!(course.conspicuous(), ["a", "c", "d"]);
    }
}
