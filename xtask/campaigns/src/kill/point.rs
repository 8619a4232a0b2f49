//! What happens at one point of a campaign, drawn from its seed before anything happens.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use super::change::Change;

/// An attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// `kill -9` of the daemon; another one starts after a pause.
    KillDaemon,
    /// SIGTERM of the daemon, which ends in an orderly way; another one starts after a pause.
    EndDaemon,
    /// `kill -9` of the daemon while it starts VMs.
    KillDaemonAmidStarts,
    /// SIGTERM of the daemon while it starts VMs.
    EndDaemonAmidStarts,
    /// SIGSTOP of the daemon, and SIGCONT after a pause.
    StopDaemon,
    /// `kill -9` of VMMs.
    KillVmms,
    /// SIGSTOP of VMMs, and SIGCONT after a pause.
    StopVmms,
    /// `kill -9` of VMMs and the daemon.
    KillBoth,
    /// SIGSTOP of VMMs, `kill -9` of the daemon, and SIGCONT once another daemon runs.
    StopVmmsKillDaemon,
    /// SIGSTOP of the daemon, `kill -9` of VMMs, and SIGCONT after a pause.
    StopDaemonKillVmms,
    /// The file system of the state directory is full.
    FullDisk,
    /// Swap space cannot be written: ENOSPC.
    NoSwapSpace,
    /// Swap space cannot be read: what was written is gone.
    LostSwap,
    /// The daemon gets no more descriptors: EMFILE.
    FewDescriptors,
}

impl Fault {
    /// All of them.
    pub(super) const ALL: [Self; 14] = [
        Self::KillDaemon,
        Self::EndDaemon,
        Self::KillDaemonAmidStarts,
        Self::EndDaemonAmidStarts,
        Self::StopDaemon,
        Self::KillVmms,
        Self::StopVmms,
        Self::KillBoth,
        Self::StopVmmsKillDaemon,
        Self::StopDaemonKillVmms,
        Self::FullDisk,
        Self::NoSwapSpace,
        Self::LostSwap,
        Self::FewDescriptors,
    ];

    /// How often it is drawn. Those that wait for the daemon's own timers (5 s until a full disk
    /// is tried again, 1 s and more until a VM is reached again) are the rarer ones.
    fn weight(self) -> u32 {
        match self {
            Self::KillDaemon | Self::KillVmms | Self::KillBoth => 4,
            Self::EndDaemon
            | Self::KillDaemonAmidStarts
            | Self::EndDaemonAmidStarts
            | Self::StopDaemon
            | Self::StopVmms
            | Self::StopVmmsKillDaemon
            | Self::StopDaemonKillVmms => 3,
            Self::NoSwapSpace | Self::LostSwap | Self::FullDisk | Self::FewDescriptors => 2,
        }
    }

    /// Returns whether only root can do it: it needs file systems of its own, or raises a limit.
    pub(super) fn needs_root(self) -> bool {
        matches!(self, Self::FullDisk | Self::NoSwapSpace | Self::LostSwap | Self::FewDescriptors)
    }

    fn draw(random: &mut Rng) -> Self {
        let all: u32 = Self::ALL.iter().map(|fault| fault.weight()).sum();
        let mut left = random.u32(..all);
        for fault in Self::ALL {
            match left.checked_sub(fault.weight()) {
                Some(less) => left = less,
                None => return fault,
            }
        }
        Self::KillDaemon
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::KillDaemon => "daemon-killed",
            Self::EndDaemon => "daemon-ended",
            Self::KillDaemonAmidStarts => "daemon-killed-amid-starts",
            Self::EndDaemonAmidStarts => "daemon-ended-amid-starts",
            Self::StopDaemon => "daemon-stopped",
            Self::KillVmms => "vmms-killed",
            Self::StopVmms => "vmms-stopped",
            Self::KillBoth => "both-killed",
            Self::StopVmmsKillDaemon => "vmms-stopped-daemon-killed",
            Self::StopDaemonKillVmms => "daemon-stopped-vmms-killed",
            Self::FullDisk => "full-disk",
            Self::NoSwapSpace => "swap-cannot-be-written",
            Self::LostSwap => "swap-cannot-be-read",
            Self::FewDescriptors => "few-descriptors",
        })
    }
}

/// One point.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    /// With this seed and one point the same is done again.
    pub(super) seed: u64,
    pub(super) fault: Fault,
    /// The VMs that it is about, by their places in the population; one at least.
    pub(super) victims: Vec<usize>,
    /// Changes that are made before the attack, one after the other.
    pub(super) before: Vec<Change>,
    /// Changes that are under way during the attack.
    pub(super) during: Vec<Change>,
    /// From the moment when those begin to the attack.
    pub(super) delay: Duration,
    /// How long the attack lasts.
    pub(super) pause: Duration,
    /// A daemon that is started refuses io_uring to itself and its VMMs, whose swap files can then
    /// be reached.
    pub(super) without_ring: bool,
    /// A full disk or few descriptors meet a daemon that starts.
    pub(super) at_start: bool,
}

/// Longest pause. The daemon waits 1 s for VMMs at its start and looks at all each second: longer
/// pauses show the same again.
const PAUSE: Duration = Duration::from_millis(700);
/// A pause after which a VMM counts as silent, which is so after 5 s.
const SILENT: Duration = Duration::from_millis(5500);

impl Point {
    /// The point with that seed, of a population of `vms`.
    pub(super) fn new(seed: u64, vms: usize) -> Self {
        let mut random = Rng::with_seed(seed);
        let fault = Fault::draw(&mut random);
        let some = if random.u8(..4) == 0 { 3 } else { 1 };
        let mut victims = random.choose_multiple(0..vms, some);
        victims.sort_unstable();
        let mut changes = |most| -> Vec<Change> {
            (0..random.usize(..=most)).map(|_| Change::draw(&mut random, vms)).collect()
        };
        let (before, during) = (changes(2), changes(3));
        let delay = Duration::from_micros(random.u64(..20_000));
        let severe = random.u8(..10) == 0;
        let pause = random.u64(..u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX));
        let pause = if severe && fault == Fault::StopVmms { SILENT } else { Duration::from_millis(pause) };
        let without_ring = random.bool();
        Self { seed, fault, victims, before, during, delay, pause, without_ring, at_start: severe }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_point_depends_on_its_seed_alone() {
        for seed in 0..100 {
            assert_eq!(Point::new(seed, 12), Point::new(seed, 12));
        }
        assert_ne!(Point::new(1, 12), Point::new(2, 12));
    }

    #[test]
    fn fifty_points_meet_every_fault_and_name_vms_that_there_are() {
        let points: Vec<Point> = (1..=50).map(|seed| Point::new(seed, 12)).collect();
        let faults: BTreeSet<Fault> = points.iter().map(|point| point.fault).collect();
        assert_eq!(faults.len(), Fault::ALL.len(), "{faults:?}");
        for point in points {
            assert!(
                !point.victims.is_empty() && point.victims.iter().all(|victim| *victim < 12),
                "{point:?}"
            );
        }
    }
}
