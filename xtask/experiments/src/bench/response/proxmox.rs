//! The rule by which Proxmox VE sizes balloons, as its administration guide (chapter "Memory") and
//! the source of its daemon pvestatd (pve-manager, `PVE/AutoBalloon.pm`, `PVE/Service/pvestatd.pm`,
//! August 2026) have it. What follows is the rule in our own words:
//!
//! - Every 10 s the host's used memory is compared with 80 % of its memory. The difference is the
//!   goal; a goal of up to 10 MiB either way is ignored.
//! - A VM has memory pressure unless its guest has more than a quarter of the VM's minimum free.
//!   Where there is memory to give, VMs with pressure come first, and where there is memory to
//!   take, the others. All VMs take part only where that moves nothing.
//! - What the VMs that take part have beyond their minimums, and the goal, is divided by shares.
//!   Each has at least its minimum and at most its size, and no balloon changes by more than 100
//!   MiB.

use std::time::Duration;

use plimsoll_units::Bytes;

/// How often pvestatd looks.
pub(super) const PERIOD: Duration = Duration::from_secs(10);
const PERCENT_USED: u64 = 80;
const LEAST_GOAL: i128 = 10 << 20;
const MOST_CHANGE: i128 = 100 << 20;

/// A VM as pvestatd sees it. All have the same shares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vm {
    pub(super) size: Bytes,
    /// Its configured minimum.
    pub(super) minimum: Bytes,
    /// What its balloon leaves it.
    pub(super) has: Bytes,
    /// What its guest has free.
    pub(super) free: Bytes,
}

impl Vm {
    fn is_pressed(&self) -> bool {
        self.free.0 <= self.minimum.0 / 4
    }
}

/// Returns what balloons are to leave `vms` of a host with `memory`, of which `used` is used.
pub(super) fn balloons(memory: Bytes, used: Bytes, vms: &[Vm]) -> Vec<Bytes> {
    let goal = i128::from(memory.0) * i128::from(PERCENT_USED) / 100 - i128::from(used.0);
    let mut has: Vec<i128> = vms.iter().map(|vm| i128::from(vm.has.0)).collect();
    if goal.abs() > LEAST_GOAL {
        let first = (0..vms.len()).filter(|i| vms[*i].is_pressed() == (goal > 0)).collect();
        let before = has.clone();
        change(vms, first, goal, &mut has);
        if has == before {
            change(vms, (0..vms.len()).collect(), goal, &mut has);
        }
    }
    has.into_iter().map(|bytes| Bytes(u64::try_from(bytes).unwrap_or(0))).collect()
}

/// Divides `goal` among the VMs `open`.
fn change(vms: &[Vm], mut open: Vec<usize>, goal: i128, has: &mut [i128]) {
    let bytes = |bytes: Bytes| i128::from(bytes.0);
    let mut left = goal;
    while !open.is_empty() && left.abs() >= i128::try_from(open.len()).unwrap_or(i128::MAX) {
        let beyond: i128 = open.iter().map(|i| has[*i] - bytes(vms[*i].minimum)).sum();
        let part = (beyond + left) / i128::try_from(open.len()).unwrap_or(i128::MAX);
        let before = open.len();
        let mut moved = 0;
        open.retain(|&i| {
            let vm = &vms[i];
            let wish = (bytes(vm.minimum) + part).clamp(bytes(vm.minimum), bytes(vm.size));
            let near = wish.clamp(bytes(vm.has) - MOST_CHANGE, bytes(vm.has) + MOST_CHANGE);
            let to = if goal < 0 { near.min(has[i]) } else { near };
            moved += to - has[i];
            // A VM that a bound holds takes no further part.
            std::mem::replace(&mut has[i], to) != to && to == bytes(vm.minimum) + part
        });
        left -= moved;
        if moved == 0 && open.len() == before {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(has: u64, free: u64) -> Vm {
        let mib = Bytes::mib;
        Vm { size: mib(256), minimum: mib(64), has: mib(has), free: mib(free) }
    }

    fn after(used: u64, vms: &[Vm]) -> Vec<u64> {
        balloons(Bytes::mib(1000), Bytes::mib(used), vms).iter().map(|bytes| bytes.0 >> 20).collect()
    }

    #[test]
    fn near_the_goal_nothing_moves() {
        assert_eq!(after(809, &[vm(160, 0), vm(160, 0)]), [160, 160]);
        assert_eq!(after(791, &[vm(160, 0), vm(160, 0)]), [160, 160]);
    }

    #[test]
    fn free_memory_goes_to_guests_with_pressure_first() {
        assert_eq!(after(740, &[vm(160, 0), vm(160, 100)]), [220, 160]);
        assert_eq!(after(740, &[vm(160, 100), vm(160, 100)]), [190, 190]);
        assert_eq!(after(500, &[vm(100, 0), vm(100, 0)]), [200, 200], "by 100 MiB at a time");
        assert_eq!(after(740, &[vm(250, 0), vm(160, 0)]), [235, 235], "shares even out what VMs have");
    }

    #[test]
    fn memory_is_taken_from_guests_with_free_memory_first() {
        assert_eq!(after(860, &[vm(160, 0), vm(160, 100)]), [160, 100]);
        assert_eq!(after(860, &[vm(160, 0), vm(160, 0)]), [130, 130]);
        assert_eq!(after(1000, &[vm(160, 0), vm(70, 100)]), [160, 64], "not below the minimum");
    }
}
