use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use plimsoll_protocol::VmName;
use plimsoll_protocol::status::{Power, VmStatus};

use super::manner::Manner;
use super::{kill, poll};
use crate::batch::Batch;
use crate::context::Context;
use crate::exit::{Status, failed, status_of};
use crate::selection::Selection;

const HELP: &str = "\
A guest obeys its power button only when its init system does (systemd, acpid or busybox do). A guest that has not booted yet, or hangs, does not. Of several VMs all buttons are pressed before any is waited for; with --all and --label those of the highest start order stop first, and the next when they are off. With --all and --label a VM that has no power button yet, because it is being started or is unreachable, is asked again; one that has no process yet is not started any more; one that is paused is refused at once.

--timeout is the time for all VMs. Each start order gets an equal part of what is left of it; when its part is over, the next one stops. Without --timeout each start order adds 60 seconds.

Examples:
  plimsoll stop web1
  plimsoll stop web1 db --timeout 5m
  plimsoll stop web1 --timeout 30s --kill   never leaves it on
  plimsoll stop --all
  plimsoll stop --label tier=web";

/// Pause before a VM without a power button is asked again. Shorter, and many of them use up the
/// changes that the daemon takes from one user; longer, and a VM that is up waits for its button.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Stop {
    #[command(flatten)]
    which: Selection,
    /// Pass over VMs that do not exist or are off
    #[arg(long)]
    ignore_missing: bool,
    #[command(flatten)]
    manner: Manner,
    /// Wait until they are off: the default
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Return as soon as the power buttons are pressed
    #[arg(long, overrides_with = "wait", conflicts_with_all = ["timeout", "kill"])]
    no_wait: bool,
}

/// A VM that is to be off and is on.
struct Stopping<'a> {
    name: &'a VmName,
    /// The place of its start order among those that stop.
    group: usize,
    /// When its button was pressed, or refused.
    asked: Instant,
    /// Why its button was refused.
    refused: Option<Error>,
}

impl Stop {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let groups = self.which.groups(context, |vm| vm.power != Power::Off)?;
        let time = self.manner.time(groups.len());
        let end = Instant::now() + time.0;
        let mut batch = Batch::new(context, self.which.is_plural());
        let mut on = Vec::new();
        for (group, names) in groups.iter().enumerate() {
            for name in names {
                let mut vm = Stopping { name, group, asked: Instant::now(), refused: None };
                match self.press(&mut vm, context) {
                    Some(outcome) => self.tell(name, outcome, context, &mut batch)?,
                    None => on.push(vm),
                }
            }
            let (now, left) = (Instant::now(), groups.len() - group);
            let part = end.saturating_duration_since(now) / u32::try_from(left).unwrap_or(u32::MAX);
            // At last all that are on are waited for.
            let first = if left == 1 { 0 } else { group };
            on = self.wait(on, first, now + part, context, &mut batch)?;
        }
        for Stopping { name, refused, .. } in on {
            let outcome = refused.map_or_else(|| self.manner.overdue(name, time, context), Err);
            self.tell(name, outcome, context, &mut batch)?;
        }
        batch.end()
    }

    /// Waits until those of `on` are off that belong to the group `first` or one after it, or until
    /// `end`. Returns those that are on.
    fn wait<'a>(
        &self,
        mut on: Vec<Stopping<'a>>,
        first: usize,
        end: Instant,
        context: &Context,
        batch: &mut Batch<'_>,
    ) -> Result<Vec<Stopping<'a>>> {
        let begin = Instant::now();
        loop {
            let mut seen = ask(&on, context).inspect_err(|_| context.output.end_progress())?;
            let mut still = Vec::new();
            for mut vm in on {
                let now = seen.remove(vm.name);
                match self.look(&mut vm, now, context) {
                    Some(outcome) => self.tell(vm.name, outcome, context, batch)?,
                    None => still.push(vm),
                }
            }
            on = still;
            let now = Instant::now();
            let awaited = on.iter().find(|vm| vm.group >= first);
            let Some(vm) = awaited.filter(|_| now < end) else {
                context.output.end_progress();
                return Ok(on);
            };
            poll::show(context, &format!("stopping {}", vm.name), begin, Some(end));
            std::thread::sleep(poll::POLL.min(end - now));
        }
    }

    /// What came of a VM, which was `seen` now; `None`: it is on.
    fn look(
        &self,
        vm: &mut Stopping<'_>,
        seen: Option<Result<VmStatus>>,
        context: &Context,
    ) -> Option<Result<VmStatus>> {
        match &vm.refused {
            Some(_) if vm.asked.elapsed() < AGAIN => None,
            Some(_) => self.press(vm, context),
            None => seen.filter(|vm| !is_on(vm)),
        }
    }

    /// Presses a VM's power button. Returns what came of it; `None`: it is on.
    fn press(&self, vm: &mut Stopping<'_>, context: &Context) -> Option<Result<VmStatus>> {
        let returns = self.no_wait && !self.wait;
        let pressed = self.manner.press(vm.name, context);
        (vm.asked, vm.refused) = (Instant::now(), None);
        match pressed {
            // Who named it is told at once, and may have meant another one.
            Err(why) if status_of(&why) == Status::Conflict && !self.which.is_named() && !returns => {
                match context.client.vm(vm.name) {
                    // It has ended by itself.
                    Ok(ended) if ended.power == Power::Off => Some(Ok(ended)),
                    // Nobody may be there to resume it, and others would wait for nothing.
                    Ok(paused) if paused.power == Power::Paused => Some(Err(why)),
                    // Memory of those that shut down would start it now.
                    Ok(queued) if queued.power == Power::Starting && queued.pid.is_none() => {
                        Some(kill::kill(vm.name, context))
                    }
                    _ => {
                        vm.refused = Some(why);
                        None
                    }
                }
            }
            pressed => Some(pressed).filter(|vm| returns || !is_on(vm)),
        }
    }

    fn tell(
        &self,
        name: &VmName,
        outcome: Result<VmStatus>,
        context: &Context,
        batch: &mut Batch<'_>,
    ) -> Result<()> {
        if self.ignore_missing && outcome.as_ref().is_err_and(|e| kill::is_missing(name, e, context)) {
            return Ok(());
        }
        context.output.end_progress();
        batch.tell(outcome, sentence)
    }
}

/// What those of `on` are now whose buttons were pressed. One question asks for all: there may be
/// a thousand, and the daemon has to serve their memory while they shut down.
///
/// # Errors
/// The daemon does not answer. What else keeps it from telling is over with the next question.
fn ask(on: &[Stopping<'_>], context: &Context) -> Result<BTreeMap<VmName, Result<VmStatus>>> {
    let pressed: Vec<&VmName> = on.iter().filter(|vm| vm.refused.is_none()).map(|vm| vm.name).collect();
    if let [name] = pressed[..] {
        return Ok(BTreeMap::from([(name.clone(), context.client.vm(name))]));
    }
    if pressed.is_empty() {
        return Ok(BTreeMap::new());
    }
    let all = match context.client.vms() {
        Err(error) if status_of(&error) != Status::NoDaemon => return Ok(BTreeMap::new()),
        all => all?,
    };
    let mut seen: BTreeMap<VmName, Result<VmStatus>> =
        all.into_iter().map(|vm| (vm.name.clone(), Ok(vm))).collect();
    for name in pressed {
        let gone = || Err(failed(Status::Unknown, format!("there is no VM {name}: see plimsoll ps")));
        seen.entry(name.clone()).or_insert_with(gone);
    }
    Ok(seen)
}

fn is_on(vm: &Result<VmStatus>) -> bool {
    vm.as_ref().is_ok_and(|vm| vm.power != Power::Off)
}

fn sentence(vm: &VmStatus) -> String {
    if vm.power == Power::Off { kill::ended(vm) } else { format!("{} is asked to shut down", vm.name) }
}
