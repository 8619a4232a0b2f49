//! The VMs of a campaign: as many of them run after each point as before it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use plimsoll_operate::Stage;
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::tmpfs::Full;
use plimsoll_protocol::control::ExitReason;
use plimsoll_protocol::status::{Exit, Power, VmStatus};
use plimsoll_units::Bytes;

use super::change::Settings;
use super::guest::{Guest, inexcusable};

/// The guest-physical memory of each VM.
pub(super) const SIZE: Bytes = Bytes::mib(32);
/// How long all guests may take to come to rest: one command each, and a look at all their memory.
const REST: Duration = Duration::from_secs(300);
const OFF: Duration = Duration::from_secs(30);
/// How the end of a VM is reported that cannot read its swap space.
const UNREADABLE: &str = "guest memory could not be read back";

/// A VM.
pub(super) struct Vm {
    pub(super) name: String,
    /// `None` while it is off.
    guest: Option<Guest>,
    pub(super) settings: Settings,
}

/// All VMs of a campaign.
pub(super) struct Population {
    /// The beginning of all their names, which no other VM on the machine has.
    pub(super) prefix: String,
    pub(super) vms: Vec<Vm>,
    /// Decides what guests do, but not what happens at a point: guests started so far are no part
    /// of a point's seed.
    random: Rng,
}

impl Population {
    /// No VMs yet. What guests do depends on `seed`.
    pub(super) fn new(seed: u64) -> Self {
        let prefix = format!("k{}-", std::process::id());
        Self { prefix, vms: Vec::new(), random: Rng::with_seed(seed) }
    }

    /// Starts `count` more VMs with guests at work.
    pub(super) fn grow(&mut self, stage: &Stage, count: usize) -> Result<()> {
        for _ in 0..count {
            let name = format!("{}{:02}", self.prefix, self.vms.len());
            let mut definition = Definition::new(&name, SIZE, Runs::Model);
            definition.sharing = Some(["red", "blue"][self.vms.len() % 2].to_owned());
            stage.run(&definition)?;
            let settings = Settings::of(&stage.vm(&name)?);
            let guest = Guest::start(stage.toucher(&name)?, self.random.fork());
            self.vms.push(Vm { name, guest: Some(guest), settings });
        }
        Ok(())
    }

    /// Starts VM `at` anew, which is off.
    pub(super) fn restart(&mut self, stage: &Stage, at: usize) -> Result<()> {
        stage.succeed(&["start", &self.vms[at].name])?;
        self.attend(stage, at)
    }

    /// Has the guest of VM `at` work, which has been started anew.
    pub(super) fn attend(&mut self, stage: &Stage, at: usize) -> Result<()> {
        let vm = &mut self.vms[at];
        if let Some(guest) = vm.guest.take() {
            inexcusable(guest.end()).with_context(|| vm.name.clone())?;
        }
        let running = stage.wait(&format!("{} runs again", vm.name), OFF, |stage| {
            let now = stage.vm(&vm.name)?;
            ensure!(now.power != Power::Off, "{} ended at once: {:?}", vm.name, now.exit);
            Ok((now.power == Power::On).then_some(()))
        });
        running?;
        vm.guest = Some(Guest::start(stage.toucher(&vm.name)?, self.random.fork()));
        Ok(())
    }

    /// The place of the VM `name`.
    pub(super) fn place(&self, name: &str) -> Option<usize> {
        self.vms.iter().position(|vm| vm.name == name)
    }

    /// Has the guest of VM `at` verify all that it wrote, ends the VM, and starts it anew. Where
    /// its swap space is lost and its file system `full`, it may as well end since it cannot read
    /// its memory back. Returns whether it did.
    pub(super) fn replace(&mut self, stage: &Stage, at: usize, full: Option<Full>) -> Result<bool> {
        let name = self.vms[at].name.clone();
        let guest = self.vms[at].guest.take().with_context(|| format!("{name} has no guest"))?;
        let rested = guest.rest().wait(Instant::now() + REST).with_context(|| name.clone())?;
        let fared = guest.end();
        let ended = rested.is_none();
        if ended && full.is_none() {
            return Err(fared.err().context("it ended without an error")?).context(name);
        }
        inexcusable(fared).with_context(|| name.clone())?;
        if !ended {
            stage.succeed(&["kill", &name])?;
        }
        let vm = stage.wait_off(&name, OFF)?;
        if ended {
            let told =
                matches!(&vm.exit, Some(Exit::Told(ExitReason::Failed(why))) if why.starts_with(UNREADABLE));
            ensure!(told, "{name} could not read its swap space, and its end was reported as {:?}", vm.exit);
        }
        drop(full);
        self.restart(stage, at)?;
        Ok(ended)
    }

    /// Has all guests verify all that they wrote, and rest. Returns the rounds of counting that
    /// the guests have done since they were started.
    ///
    /// # Errors
    /// The VM's name is the outermost context of its error.
    pub(super) fn rest(&mut self) -> Result<u64> {
        let deadline = Instant::now() + REST;
        let rests: Vec<_> = self.vms.iter().map(|vm| vm.guest.as_ref().map(Guest::rest)).collect();
        let mut rounds = 0;
        for (vm, rest) in self.vms.iter_mut().zip(rests) {
            let rest = rest.with_context(|| format!("{} has no guest", vm.name))?;
            match rest.wait(deadline).with_context(|| vm.name.clone())? {
                Some(counted) => rounds += counted,
                None => {
                    let ended = vm.guest.take().map_or(Ok(()), Guest::end);
                    return Err(ended.err().context("it ended without an error")?)
                        .with_context(|| vm.name.clone());
                }
            }
        }
        Ok(rounds)
    }

    /// Ends all VMs, as their operator would.
    pub(super) fn stop(&mut self, stage: &Stage) -> Result<()> {
        for vm in &mut self.vms {
            stage.succeed(&["stop", &vm.name])?;
            let now = stage.wait_off(&vm.name, OFF)?;
            let told = matches!(now.exit, Some(Exit::Told(ExitReason::Shutdown)));
            ensure!(told, "{} was stopped, and its end was reported as {:?}", vm.name, now.exit);
            vm.guest.take().map_or(Ok(()), Guest::end).with_context(|| vm.name.clone())?;
        }
        Ok(())
    }

    /// Has all guests go on.
    pub(super) fn work(&self) {
        self.vms.iter().filter_map(|vm| vm.guest.as_ref()).for_each(Guest::work);
    }

    /// The VM that `error` names, if it names one.
    pub(super) fn concerned(&self, error: &anyhow::Error) -> Option<&str> {
        let text = format!("{error:#}");
        self.vms.iter().map(|vm| vm.name.as_str()).find(|name| text.contains(*name))
    }

    /// Takes what VMs are set to now as what was set; the status of all is `now`.
    pub(super) fn settle(&mut self, now: &[VmStatus]) {
        for vm in &mut self.vms {
            if let Some(now) = now.iter().find(|now| now.name.as_str() == vm.name) {
                vm.settings = Settings::of(now);
            }
        }
    }
}
