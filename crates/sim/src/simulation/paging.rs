//! What VMs swap out, within swap space and the speed of its disk.

use plimsoll_units::Pages;

use super::Simulation;

impl Simulation {
    /// Swaps out what VMs hold beyond their levels, as far as the disk and the swap space allow.
    pub(super) fn swap_out(&mut self) {
        let mut writes = self.in_step(self.scenario.host.swap_speed);
        let mut written_in_all = Pages::ZERO;
        for i in 0..self.vms.len() {
            let room = self.swap_of(i, self.swap_left());
            let Some(run) = self.vms[i].run_mut() else { continue };
            // What has gone meanwhile, into a balloon for one, need not go again.
            let above = run.charged().saturating_sub(run.level);
            let (_, written) = run.guest.memory.swap_out(above, writes.min(room));
            writes -= written;
            written_in_all += written;
        }
        self.recorder.swapped(written_in_all, Pages::ZERO);
    }

    /// Faults of VM `i`, which held `held` and lacks `missing`, replace pages of its own as far as
    /// its level makes it page. Returns how many.
    pub(super) fn replace(&mut self, i: usize, held: Pages, missing: Pages, writes: &mut Pages) -> Pages {
        let room = self.swap_of(i, self.swap_left());
        let Some(run) = self.vms[i].run_mut().filter(|run| run.reclaim.block == Pages::ZERO) else {
            return Pages::ZERO;
        };
        let beyond = (held + missing).saturating_sub(run.level).min(missing);
        let (freed, written) = run.guest.memory.swap_out(beyond, (*writes).min(room));
        *writes -= written;
        self.recorder.swapped(written, Pages::ZERO);
        freed
    }

    pub(super) fn swap_left(&self) -> Pages {
        let used: Pages = self.runs().map(|(_, run)| run.guest.memory.on_swap()).sum();
        Pages::floor(self.scenario.host.swap).saturating_sub(used)
    }

    /// Returns what can still be swapped out of VM `i` of a host with `left` swap space. As in the
    /// daemon, each VM has its size less its reservation.
    pub(super) fn swap_of(&self, i: usize, left: Pages) -> Pages {
        let spec = &self.scenario.vms[i];
        let used = self.vms[i].run().map_or(Pages::ZERO, |run| run.guest.memory.on_swap());
        spec.size.saturating_sub(spec.reservation).saturating_sub(used).min(left)
    }
}
