//! Settings that change while VMs run.

use super::*;
use crate::config::Config;

fn reconfigure(world: &mut World, change: impl FnOnce(&mut Settings)) {
    let mut settings = world.core.settings.clone();
    change(&mut settings);
    world.input(Input::Reconfigured(Box::new(settings), "the configuration was read again".to_owned()));
}

#[test]
fn a_smaller_budget_is_called_back_from_vms_and_a_larger_one_is_theirs_at_once() {
    let mut world = World::new(640);
    let run = world.up(definition("a", 512, ""));
    world.say(run, FromVmm::Want(mib(450)));
    world.report(run, Pages(0));
    reconfigure(&mut world, |settings| {
        settings.budget = mib(300);
        settings.thresholds = Thresholds::sliding(Bytes::mib(300));
    });
    assert_eq!((world.host().free, world.host().taken), (Bytes::ZERO, Bytes::ZERO), "promises are kept");
    assert!(world.core.events.after(0).iter().any(|event| event.text.contains("read again")));
    for _ in 0..60 {
        world.pass(SECOND);
        follow(&mut world, run);
    }
    let host = world.host();
    assert!(host.budget == Bytes::mib(300) && host.free > Bytes::ZERO, "{host:?}");
    reconfigure(&mut world, |settings| settings.budget = mib(800));
    assert_eq!(world.host().budget, Bytes::mib(800));
}

#[test]
fn a_budget_that_becomes_automatic_goes_on_from_where_it_is() {
    let mut world = World::new(640);
    let thresholds = Config::default().thresholds();
    reconfigure(&mut world, |settings| {
        settings.automatic = Some(AutomaticBudget { thresholds, told: Pages(0) });
        settings.budget = Pages(0);
    });
    let host = world.host();
    assert_eq!(host.budget, Bytes::mib(640));
    assert_eq!(host.high_threshold, Thresholds::sliding(Bytes::mib(640)).clear.bytes());
    world.input(usable_input(Bytes::mib(500)));
    assert_eq!(world.host().budget, Bytes::mib(500));
}

#[test]
fn rules_change_at_once() {
    let mut world = World::new(640);
    let run = world.up(definition("a", 256, ""));
    let scan = |world: &mut World| {
        world.pass(SECOND);
        world.report(run, Pages(0));
        world.core.settings.rules
    };
    assert_eq!(scan(&mut world).largest_balloon, Rules::LARGEST_BALLOON);
    reconfigure(&mut world, |settings| settings.rules.largest_balloon = 5);
    assert_eq!(scan(&mut world).largest_balloon, 5);
}
