//! After an attack: all that lives is well, what was killed is started anew, and nothing is left.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plimsoll_protocol::status::{Exit, Power, VmStatus};

use super::attack::Aftermath;
use super::change::Settings;
use super::field::Field;
use super::leftovers::{self, Leftovers};
use super::population::Population;
use super::tally::Tally;
use super::until_fine::until_fine;

/// How long it may take until all VMs are well. The longest wait in it is the daemon's until it
/// tries again to reach a VMM: 16 s.
const WELL: Duration = Duration::from_secs(60);
/// How long it may take until nothing is left over and all accounts agree. VMMs report each second,
/// and frames are given back within some seconds.
const SETTLED: Duration = Duration::from_secs(30);

/// Waits until all is well again after an attack, and checks that.
///
/// # Errors
/// What is wrong. The VM that it is about is named, if it is about one.
pub(super) fn recover(
    field: &Field,
    population: &mut Population,
    looks: &mut Leftovers,
    mut aftermath: Aftermath,
    tally: &mut Tally,
) -> Result<()> {
    let stage = &field.stage;
    for vm in well(field, population, &aftermath)? {
        let name = vm.name.as_str();
        let at =
            population.place(name).with_context(|| format!("the daemon lists {name}, which nobody made"))?;
        if aftermath.killed.contains(&at) {
            let vanished = matches!(vm.exit, Some(Exit::Vanished(_)));
            ensure!(vanished, "{name} was killed, and its end was reported as {:?}", vm.exit);
            until_fine(leftovers::GONE, || leftovers::of_dead(field, name))?;
            population.restart(stage, at)?;
        } else if let Some((_, said)) = aftermath.starting.iter().find(|(starting, _)| *starting == at) {
            tally.count(match vm.power {
                Power::On => "starts that were carried out though the daemon ended",
                _ => "starts that were cut off",
            });
            if vm.power == Power::On {
                population.attend(stage, at)?;
            } else {
                ensure!(!said, "{name} was started, and was off after the daemon had ended: {:?}", vm.exit);
                until_fine(leftovers::GONE, || leftovers::of_dead(field, name))?;
                population.restart(stage, at)?;
            }
        } else if aftermath.unwritable.contains(&at) {
            // It has to hold all that it uses now.
            stage.succeed(&["set", name, "--limit", "none", "--pool", "/"])?;
            population.vms[at].settings = Settings::of(&stage.vm(name)?);
            population.replace(stage, at, None)?;
            tally.count(if vm.paging.failed {
                "VMs that went on without swap space"
            } else {
                "VMs that did not need what they lost of swap space"
            });
        } else if let Some((_, full)) = aftermath.unreadable.take_if(|(unreadable, _)| *unreadable == at) {
            let ended = population.replace(stage, at, Some(full))?;
            tally.count(if ended {
                "VMs that ended since swap space could not be read"
            } else {
                "VMs that had nothing in the swap space that they lost"
            });
        } else {
            ensure!(vm.power == Power::On, "{name} ended by itself: {:?}", vm.exit);
        }
    }
    population.rest()?;
    until_fine(SETTLED, || looks.find(field, population))?;
    population.settle(&stage.vms()?);
    population.work();
    Ok(())
}

/// Waits until each VM runs and nothing is said against it, or is off. Returns all of them.
fn well(field: &Field, population: &Population, aftermath: &Aftermath) -> Result<Vec<VmStatus>> {
    until_fine(WELL, || {
        let vms = field.stage.vms()?;
        Ok(population.vms.iter().enumerate().find_map(|(at, vm)| {
            let Some(now) = vms.iter().find(|now| now.name.as_str() == vm.name) else {
                return Some(format!("the daemon does not list {}", vm.name));
            };
            let fine = match now.power {
                Power::Off => true,
                Power::On => now.note.is_none() && !aftermath.killed.contains(&at),
                Power::Starting | Power::Stopping | Power::Paused => false,
            };
            let note = now.note.as_deref().unwrap_or("no note");
            (!fine).then(|| format!("{} is {}: {note}", vm.name, now.power))
        }))
    })?;
    field.stage.vms()
}
