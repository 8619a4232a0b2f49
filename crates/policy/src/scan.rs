//! The processor time that each VM spends on scanning for pages that can be shared.
//!
//! Scanning costs processor time and saves memory. So the time depends on the idle time of the
//! host's processors, on its shortage of memory, and on the VM's recent gain from scanning. The
//! paper scans at a fixed rate and leaves the rest to later work (Waldspurger 2002, section 4.3).
//! Linux's KSM scans at a fixed rate too, and takes a processor of hosts without equal pages.

use plimsoll_units::Pages;

use crate::state::State;

/// The facts of the host that scanning depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScanHost {
    /// Its shortage of memory.
    pub state: State,
    /// The part of its processors' time that is idle, 0 to 1.
    pub idle: f64,
    /// The number of its processors.
    pub processors: u32,
}

/// The facts of a VM that scanning depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScanVm {
    /// The memory to scan.
    pub held: Pages,
    /// Pages saved for each page scanned of late; `None`: not known yet.
    pub gain: Option<f64>,
    /// It holds more than its entitlement.
    pub above_entitlement: bool,
}

/// The scanning that a VM is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Processor time that it may take, in ten-thousandths of one processor: at most
    /// [`Scan::WHOLE`].
    pub share: u16,
    /// Large chunks are broken for the pages in them that can be shared.
    pub break_large: bool,
}

impl Scan {
    /// A whole processor: one thread scans.
    pub const WHOLE: u16 = 10_000;
    /// The least time of a VM among few: some thousand pages a second, a GiB in a minute or two. If
    /// less, content that becomes equal to other VMs' would not be noticed for hours.
    pub const LEAST: u16 = 20;
}

/// The least time of all VMs together, as a part of the host's processors. If more, the cost of
/// many VMs with nothing to share would be noticeable.
const LEAST_OF_ALL: f64 = 0.005;

/// From this gain on scanning is worth its full time. A first pass over guests of different systems
/// gains a page in fifty (zero pages alone). If lower, time goes into memory that has been scanned
/// already. If higher, a fleet of different guests never gets its possible gain.
const WORTHWHILE: f64 = 0.02;

/// Returns the scanning of each VM, in the order given.
///
/// All VMs together take an eighth of the idle time of the host's processors while the host has
/// memory, a quarter in state clear and half below. That time is divided by the memory to scan,
/// with less for VMs whose gain is small. A VM whose gain is not known yet counts as worth it. No
/// VM takes less than [`Scan::LEAST`] or, among many, its part of one two-hundredth of the host's
/// time.
pub fn scan(host: &ScanHost, vms: &[ScanVm]) -> Vec<Scan> {
    let all = allowed(host);
    let weights: Vec<f64> = vms.iter().map(weight).collect();
    let sum: f64 = weights.iter().sum();
    let least = least(host, vms.len());
    let one = |(vm, weight): (&ScanVm, &f64)| {
        let part = if sum > 0.0 { all * weight / sum } else { 0.0 };
        Scan {
            share: share(part.min(f64::from(Scan::WHOLE) * worth(vm)), least),
            break_large: host.state >= State::Soft || vm.above_entitlement,
        }
    };
    vms.iter().zip(&weights).map(one).collect()
}

/// The least time of each of `vms` VMs, in ten-thousandths of a processor.
fn least(host: &ScanHost, vms: usize) -> u16 {
    let processors = f64::from(host.processors) * f64::from(Scan::WHOLE);
    #[expect(clippy::cast_precision_loss, reason = "a number of VMs")]
    let each = LEAST_OF_ALL * processors / vms.max(1) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1..=20")]
    let each = each.clamp(1.0, f64::from(Scan::LEAST)) as u16;
    each
}

/// The time of all VMs, in ten-thousandths of a processor.
fn allowed(host: &ScanHost) -> f64 {
    let part = match host.state {
        State::High => 0.125,
        State::Clear => 0.25,
        State::Soft | State::Hard | State::Low => 0.5,
    };
    let idle = if host.idle.is_finite() { host.idle.clamp(0.0, 1.0) } else { 0.0 };
    idle * part * f64::from(host.processors) * f64::from(Scan::WHOLE)
}

/// The worth of scanning a VM: 0 to 1.
fn worth(vm: &ScanVm) -> f64 {
    let gain = vm.gain.filter(|gain| gain.is_finite()).unwrap_or(1.0);
    (gain / WORTHWHILE).clamp(0.0, 1.0)
}

fn weight(vm: &ScanVm) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a weight")]
    let held = vm.held.0 as f64;
    held * worth(vm)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1..=10 000")]
fn share(part: f64, least: u16) -> u16 {
    part.clamp(f64::from(least), f64::from(Scan::WHOLE)) as u16
}

/// The recent gain from scanning one VM. Old observations fade as new pages are scanned.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gain {
    scanned: f64,
    saved: f64,
    /// All pages scanned, without fading.
    seen: u64,
}

impl Gain {
    /// Pages scanned after which earlier observations count half: 128 MiB. If fewer, a stretch
    /// without gain stops the search for pages behind it. If more, a VM that has been scanned
    /// through goes on for long.
    const HALF: f64 = 32768.0;
    /// Pages scanned before the gain is known, even if a VM has less: 16 MiB.
    const LEAST: u64 = 4096;

    /// Adds an observation: `scanned` pages were scanned, `merged` were shared, and `broken` are
    /// shared no more.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn observe(&mut self, scanned: u64, merged: u64, broken: u64) {
        let fades = 0.5f64.powf(scanned as f64 / Self::HALF);
        self.scanned = self.scanned * fades + scanned as f64;
        self.seen = self.seen.saturating_add(scanned);
        self.saved = self.saved * fades + merged.saturating_sub(broken) as f64;
    }

    /// Pages saved for each page scanned, 0 to 1; `None`: too few pages have been scanned for a VM
    /// that holds `held`.
    ///
    /// All pages have to be scanned once. The first finds are hints, which save nothing until
    /// another VM has the same content. If VMs stopped before, later VMs would find no hints.
    pub fn rate(&self, held: Pages) -> Option<f64> {
        (self.seen >= held.0.max(Self::LEAST)).then(|| (self.saved / self.scanned).clamp(0.0, 1.0))
    }

    /// Forgets the gain: the content to find has changed.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_state() -> impl Strategy<Value = State> {
        prop_oneof![
            Just(State::High),
            Just(State::Clear),
            Just(State::Soft),
            Just(State::Hard),
            Just(State::Low)
        ]
    }

    prop_compose! {
        fn any_vm()(
            held in prop_oneof![0..1u64 << 28, Just(u64::MAX)], gain in prop::option::of(prop_oneof![-1.0..2.0f64, Just(f64::NAN)]),
            above_entitlement: bool,
        ) -> ScanVm {
            ScanVm { held: Pages(held), gain, above_entitlement }
        }
    }

    prop_compose! {
        fn any_host()(state in any_state(), idle in prop_oneof![-1.0..2.0f64, Just(f64::NAN)], processors in 0..1000u32) -> ScanHost {
            ScanHost { state, idle, processors }
        }
    }

    fn host(idle: f64) -> ScanHost {
        ScanHost { state: State::High, idle, processors: 8 }
    }

    fn vm(gain: f64) -> ScanVm {
        ScanVm { held: Pages(1 << 18), gain: Some(gain), above_entitlement: false }
    }

    #[test]
    fn who_has_nothing_to_gain_takes_next_to_nothing_and_leaves_the_time_to_others() {
        let shares = |vms: &[ScanVm]| scan(&host(1.0), vms).iter().map(|s| s.share).collect::<Vec<_>>();
        assert_eq!(shares(&[vm(0.0), vm(0.5), vm(1.0)]), [Scan::LEAST, 5000, 5000]);
        assert_eq!(shares(&[ScanVm { gain: None, ..vm(0.0) }]), [10_000]);
        assert_eq!(shares(&[vm(0.01)]), [5000]);
    }

    #[test]
    fn many_who_have_nothing_to_gain_take_next_to_nothing_together() {
        let one = ScanHost { processors: 1, ..host(1.0) };
        let all = |vms| scan(&one, &vec![vm(0.0); vms]).iter().map(|s| u32::from(s.share)).sum::<u32>();
        assert_eq!((all(1), all(2), all(10), all(50)), (20, 40, 50, 50));
        assert_eq!(all(100), 100, "none less than one in ten thousand");
        assert_eq!(scan(&host(1.0), &vec![vm(0.0); 20])[7].share, Scan::LEAST);
    }

    #[test]
    fn large_chunks_are_broken_under_pressure_and_for_who_is_above_his_entitlement() {
        let breaks = |state, above_entitlement| {
            let vm = ScanVm { above_entitlement, ..vm(1.0) };
            scan(&ScanHost { state, ..host(1.0) }, &[vm])[0].break_large
        };
        assert!(!breaks(State::High, false) && !breaks(State::Clear, false) && breaks(State::Soft, false));
        assert!(breaks(State::High, true) && breaks(State::Low, false));
    }

    #[test]
    fn a_gain_is_known_after_a_while_and_fades_when_nothing_is_found_any_more() {
        let mut gain = Gain::default();
        gain.observe(1000, 1000, 0);
        assert_eq!(gain.rate(Pages(10)), None);
        gain.observe(4000, 1500, 0);
        assert!(gain.rate(Pages(10)).is_some_and(|rate| (0.45..0.55).contains(&rate)), "{gain:?}");
        for _ in 0..100 {
            gain.observe(5000, 10, 10);
        }
        assert!(gain.rate(Pages(10)).is_some_and(|rate| rate < 0.01), "{gain:?}");
        gain.forget();
        assert_eq!(gain.rate(Pages(10)), None);
    }

    #[test]
    fn all_of_a_vm_is_looked_at_once_before_that_is_taken_to_be_in_vain() {
        let mut gain = Gain::default();
        let held = Pages(1 << 24);
        for _ in 0..15 {
            gain.observe(1 << 20, 0, 0);
            assert_eq!(gain.rate(held), None);
        }
        gain.observe(1 << 20, 0, 0);
        assert_eq!(gain.rate(held), Some(0.0));
    }

    proptest! {
        #[test]
        fn nobody_takes_more_than_a_processor_and_all_no_more_than_there_is(host in any_host(), vms in prop::collection::vec(any_vm(), 0..20)) {
            let scans = scan(&host, &vms);
            prop_assert_eq!(scans.len(), vms.len());
            let least = least(&host, vms.len());
            prop_assert!(scans.iter().all(|s| (least..=Scan::WHOLE).contains(&s.share)));
            let beyond: f64 = scans.iter().map(|s| f64::from(s.share) - f64::from(least)).sum();
            prop_assert!(beyond <= allowed(&host) + 1.0, "{} {}", beyond, allowed(&host));
        }

        #[test]
        fn more_idle_time_more_need_and_more_gain_never_make_anybody_look_less(
            host in any_host(), vms in prop::collection::vec(any_vm(), 1..20), idle in 0.0..1.0f64, gain in 0.0..1.0f64,
        ) {
            let before = scan(&host, &vms);
            let idler = ScanHost { idle: if host.idle.is_finite() { host.idle.max(idle) } else { idle }, ..host };
            let shorter = ScanHost { state: host.state.max(State::Clear), ..host };
            for after in [scan(&idler, &vms), scan(&shorter, &vms)] {
                for (before, after) in before.iter().zip(&after) {
                    prop_assert!(after.share >= before.share && after.break_large >= before.break_large);
                }
            }
            let mut better = vms.clone();
            better[0].gain = vms[0].gain.map(|g| if g.is_finite() { g.max(gain) } else { g });
            prop_assert!(scan(&host, &better)[0].share >= before[0].share);
        }

        #[test]
        fn a_gain_is_a_part_whatever_is_said(seen in prop::collection::vec(prop::array::uniform3(prop_oneof![0..10_000u64, any::<u64>()]), 0..50)) {
            let mut gain = Gain::default();
            for [scanned, merged, broken] in seen {
                gain.observe(scanned, merged, broken);
                prop_assert!(gain.rate(Pages(1)).is_none_or(|rate| (0.0..=1.0).contains(&rate)), "{:?}", gain);
            }
        }
    }
}
