use plimsoll_protocol::VmName;
use plimsoll_protocol::control::ToVmm;

use super::run::{Phase, Unreachable};
use super::{Answer, Core, Effect, Failure, FailureKind, RunId};

/// VMs that their operator pauses and resets. Their VMMs obey; the daemon keeps no state of it but
/// what they report.
impl Core {
    /// Has a VM's processors stand still.
    pub(super) fn pause(&mut self, name: &VmName) -> Result<Answer, Failure> {
        self.set_paused(name, true, "is paused already")?;
        self.event(Some(name), "is paused");
        self.status_answer(name)
    }

    /// Has a paused VM's processors go on.
    pub(super) fn resume(&mut self, name: &VmName) -> Result<Answer, Failure> {
        self.set_paused(name, false, "is not paused")?;
        self.event(Some(name), "goes on");
        self.status_answer(name)
    }

    /// Tells a VMM whether its VM is paused. `is_so`: what to answer if it is so already.
    fn set_paused(&mut self, name: &VmName, paused: bool, is_so: &str) -> Result<(), Failure> {
        let id = self.must_be_at_work(name)?;
        let Some(run) = self.run_mut(id) else { return Ok(()) };
        if run.facts.paused == paused {
            return Err(Failure::new(FailureKind::Conflict, format!("VM {name} {is_so}")));
        }
        // The next report says so, too.
        run.facts.paused = paused;
        self.effect(Effect::Send(id, ToVmm::Pause(paused)));
        Ok(())
    }

    /// Presses a VM's reset button.
    pub(super) fn reset(&mut self, name: &VmName) -> Result<Answer, Failure> {
        let id = self.must_be_at_work(name)?;
        self.must_not_be_paused(name, id)?;
        self.effect(Effect::Send(id, ToVmm::Reset));
        self.event(Some(name), "is reset");
        self.status_answer(name)
    }

    pub(super) fn must_not_be_paused(&self, name: &VmName, id: RunId) -> Result<(), Failure> {
        match self.run(id) {
            Some(run) if run.facts.paused => {
                let text = format!("VM {name} is paused: resume it first, or kill it");
                Err(Failure::new(FailureKind::Conflict, text))
            }
            _ => Ok(()),
        }
    }

    /// A run whose VMM obeys.
    pub(super) fn must_be_at_work(&self, name: &VmName) -> Result<RunId, Failure> {
        let id = self.must_run(name)?;
        let text = match self.run(id).map(|run| &run.phase) {
            Some(Phase::Running | Phase::Stopping) | None => return Ok(id),
            Some(Phase::Unreachable(Unreachable { why, .. })) => {
                format!("VM {name} is out of reach: {why}; plimsolld keeps trying: try again")
            }
            Some(Phase::Ending(_)) => format!("VM {name} is ending"),
            Some(Phase::Queued(_) | Phase::Launching(_) | Phase::Booting(_)) => {
                format!("VM {name} is being started: try again")
            }
        };
        Err(Failure::new(FailureKind::Conflict, text))
    }
}
