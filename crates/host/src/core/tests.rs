use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use plimsoll_policy::{Tax, Thresholds};
use plimsoll_protocol::VmName;
use plimsoll_protocol::api::{BalloonHealth, Exit, HostStatus, Power, VmChange, VmStatus};
use plimsoll_protocol::control::{ExitReason, Facts, FromVmm, ToVmm};
use plimsoll_protocol::definition::{JailPart, VmDefinition};
use plimsoll_units::{Bytes, Pages};
use proptest::prelude::*;

use super::*;

fn mib(n: u64) -> Pages {
    Pages::floor(Bytes::mib(n))
}

fn name(text: &str) -> VmName {
    text.parse().unwrap()
}

fn definition(name: &str, size: u64, more: &str) -> VmDefinition {
    let text = format!("name = '{name}'\nsize = '{size}MiB'\n{more}\n[boot]\nmodel = true\n");
    VmDefinition::from_toml(&text, Path::new("/")).unwrap()
}

/// A core, and a world around it that remembers what it was told to do.
struct World {
    core: Core,
    clock: Clock,
    requests: u64,
    answers: BTreeMap<u64, Result<Answer, Failure>>,
    granted: BTreeMap<RunId, Pages>,
    balloons: BTreeMap<RunId, Pages>,
    killed: Vec<RunId>,
    cleared: Vec<RunId>,
    launches: Vec<(RunId, Pages)>,
    forgotten: Vec<VmName>,
}

impl World {
    fn new(budget: u64) -> Self {
        let clock = Clock { now: Instant::now(), at: Timestamp::UNIX_EPOCH };
        let settings = Settings {
            budget: mib(budget),
            thresholds: Thresholds::sliding(Bytes::mib(budget)),
            tax: Tax::DEFAULT,
            paths: Paths { state: "/s".into(), run: "/r".into() },
        };
        Self {
            core: Core::new(settings, Vec::new(), clock),
            clock,
            requests: 0,
            answers: BTreeMap::new(),
            granted: BTreeMap::new(),
            balloons: BTreeMap::new(),
            killed: Vec::new(),
            cleared: Vec::new(),
            launches: Vec::new(),
            forgotten: Vec::new(),
        }
    }

    fn input(&mut self, input: Input) {
        let effects = self.core.handle(self.clock, input);
        assert!(self.core.ledger.adds_up());
        for effect in effects {
            match effect {
                Effect::Launch { run, grant, .. } => {
                    self.launches.push((run, grant));
                    self.granted.insert(run, grant);
                }
                Effect::Grant { run, pages, total } => {
                    let granted = self.granted.entry(run).or_default();
                    *granted += pages;
                    assert_eq!(*granted, total);
                }
                Effect::Returned { run, total } => {
                    self.granted.insert(run, total);
                }
                Effect::Send(run, ToVmm::BalloonTarget(pages)) => {
                    self.balloons.insert(run, pages);
                }
                Effect::Kill(run) => self.killed.push(run),
                Effect::Clear(run, _) => self.cleared.push(run),
                Effect::Forget(name, answers) => {
                    self.forgotten.push(name);
                    self.answers.extend(answers.into_iter().map(|(id, answer)| (id.0, answer)));
                }
                Effect::Save(_, answers) => {
                    self.answers.extend(answers.into_iter().map(|(id, answer)| (id.0, answer)));
                }
                Effect::Answer(id, answer) => {
                    assert!(self.answers.insert(id.0, answer).is_none(), "answered twice");
                }
                Effect::Send(..) | Effect::Settled(..) => {}
            }
        }
    }

    fn ask(&mut self, request: Request) -> u64 {
        self.requests += 1;
        self.input(Input::Request(RequestId(self.requests), request));
        self.requests
    }

    fn answer(&mut self, request: Request) -> Result<Answer, Failure> {
        let id = self.ask(request);
        self.answers.remove(&id).expect("it is answered at once")
    }

    fn vm(&mut self, vm: &str) -> VmStatus {
        match self.answer(Request::Get(name(vm))) {
            Ok(Answer::Vm(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    fn host(&mut self) -> HostStatus {
        match self.answer(Request::Host) {
            Ok(Answer::Host(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// Creates a VM and brings it up.
    fn up(&mut self, definition: VmDefinition) -> RunId {
        let id = self.ask(Request::Create(Box::new(definition)));
        let run = RunId(self.core.last_run);
        self.input(Input::Launched(run, Ok(Started { pid: 7, missing_jail: vec![] })));
        self.say(run, FromVmm::Running { missing_jail: vec![] });
        assert!(matches!(self.answers.remove(&id), Some(Ok(Answer::Vm(vm))) if vm.power == Power::On));
        run
    }

    fn say(&mut self, run: RunId, message: FromVmm) {
        self.input(Input::Message(run, message));
    }

    fn pass(&mut self, time: Duration) {
        self.clock.now += time;
        self.input(Input::Tick);
    }

    /// An honest VM that holds all it was granted reports.
    fn report(&mut self, run: RunId, ballooned: Pages) {
        let grant = self.granted[&run];
        let wanted = self.core.run(run).unwrap().wanted;
        let facts = Facts {
            grant,
            held: grant,
            wanted,
            ballooned,
            balloon_actual: ballooned,
            balloon_driver: true,
            ..Facts::default()
        };
        self.say(run, FromVmm::Report(facts));
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_vm_is_charged_when_it_starts_and_free_again_only_when_its_process_is_gone() {
    let mut world = World::new(640);
    let run = world.up(definition("a", 256, ""));
    let host = world.host();
    assert_eq!(host.granted.0 + host.overhead.0 + host.free.0, Bytes::mib(640).0);
    assert_eq!(world.vm("a").grant, world.granted[&run].bytes());
    let kill = world.ask(Request::Kill(name("a")));
    assert_eq!((world.killed.as_slice(), world.answers.get(&kill)), (&[run][..], None));
    assert_eq!(world.host().granted, host.granted);
    world.input(Input::Exited(run, "signal 9".into()));
    assert!(matches!(&world.answers[&kill], Ok(Answer::Vm(vm)) if vm.exit == Some(Exit::KilledByOperator)));
    assert_eq!((world.host().free, world.cleared.as_slice()), (Bytes::mib(640), &[run][..]));
}

#[test]
fn admission_counts_reservations_and_the_refusal_gives_both_numbers() {
    let mut world = World::new(640);
    world.up(definition("a", 256, "reservation = '256MiB'"));
    world.up(definition("b", 256, "reservation = '256MiB'"));
    let before = world.host();
    let refused = world.answer(Request::Create(Box::new(definition("c", 256, "reservation = '128MiB'"))));
    let failure = refused.unwrap_err();
    assert_eq!(failure.kind, FailureKind::NoMemory);
    assert!(
        failure.text.contains("138.5MiB") && failure.text.contains("107MiB is unreserved"),
        "{}",
        failure.text
    );
    assert_eq!(world.host(), before);
    assert!(world.answer(Request::Get(name("c"))).is_err(), "nothing is half made");
}

#[test]
fn another_vms_reservation_is_never_given_away() {
    let mut world = World::new(640);
    let reserved = world.up(definition("a", 256, "reservation = '256MiB'"));
    let greedy = world.up(definition("b", 1024, "shares = 200000000"));
    for _ in 0..200 {
        world.say(greedy, FromVmm::Want(mib(1024)));
        world.pass(SECOND);
        world.report(greedy, Pages(0));
    }
    let lacks = mib(256) - world.granted[&reserved];
    assert!(world.core.ledger.free() >= lacks);
    world.say(reserved, FromVmm::Want(lacks));
    assert_eq!(world.granted[&reserved], mib(256));
}

#[test]
fn every_want_is_answered_so_that_a_vmm_can_make_do() {
    let mut world = World::new(128);
    let run = world.up(definition("a", 256, ""));
    world.say(run, FromVmm::Want(mib(200)));
    let clock = world.clock;
    let effects = world.core.handle(clock, Input::Message(run, FromVmm::Want(mib(200))));
    assert!(effects.iter().any(|e| matches!(e, Effect::Grant { .. })), "{effects:?}");
}

#[test]
fn who_waits_is_served_when_memory_comes_back_the_smallest_need_first() {
    let mut world = World::new(256);
    let holder = world.up(definition("holder", 256, "shares = 1"));
    let (small, large) = (world.up(definition("small", 64, "")), world.up(definition("large", 256, "")));
    world.say(holder, FromVmm::Want(mib(256)));
    world.say(large, FromVmm::Want(mib(200)));
    world.say(small, FromVmm::Want(mib(2)));
    assert!(world.vm("large").wanted > Bytes::ZERO);
    world.pass(SECOND);
    let before = (world.granted[&small], world.granted[&large]);
    world.input(Input::Exited(holder, "signal 9".into()));
    assert_eq!(world.vm("small").wanted, Bytes::ZERO);
    assert!(world.granted[&large] > before.1 && world.granted[&small] >= before.0);
}

#[test]
fn memory_moves_from_an_idle_vm_to_one_that_needs_it_and_balloons_deflate_afterwards() {
    let mut world = World::new(640);
    let runs: Vec<RunId> = ["a", "b", "c", "d"].iter().map(|vm| world.up(definition(vm, 256, ""))).collect();
    // The first three take what they can get, then fall idle.
    for &run in &runs[..3] {
        world.say(run, FromVmm::Want(mib(200)));
        world.report(run, Pages(0));
    }
    for _ in 0..120 {
        world.pass(SECOND);
        for &run in &runs[..3] {
            world.say(run, FromVmm::Want(Pages(0)));
            follow(&mut world, run);
        }
        world.report(runs[3], Pages(0));
    }
    // Then the fourth needs everything.
    for _ in 0..60 {
        let lacks = mib(256) - world.granted[&runs[3]];
        world.say(runs[3], FromVmm::Want(lacks.min(mib(16))));
        world.pass(SECOND);
        for &run in &runs[..3] {
            follow(&mut world, run);
        }
        world.report(runs[3], Pages(0));
    }
    assert!(world.granted[&runs[3]] >= mib(240), "{}", world.granted[&runs[3]].bytes());
    assert!(world.vm("a").balloon_target > Bytes::ZERO);
    assert_eq!(world.vm("a").balloon, BalloonHealth::Following);
    world.input(Input::Exited(runs[3], "signal 9".into()));
    for _ in 0..20 {
        world.pass(SECOND);
    }
    assert_eq!(world.vm("a").balloon_target, Bytes::ZERO);
}

/// A guest whose balloon does as it is told, and whose VMM returns what that frees.
fn follow(world: &mut World, run: RunId) {
    let balloon = world.balloons.get(&run).copied().unwrap_or_default();
    let most = mib(256) - balloon;
    let over = world.granted[&run].saturating_sub(most);
    if over > Pages(0) {
        world.say(run, FromVmm::Return(over));
    }
    world.report(run, balloon);
}

#[test]
fn a_balloon_that_does_not_follow_is_reported_and_not_rewarded() {
    let mut world = World::new(256);
    let lazy = world.up(definition("lazy", 256, ""));
    world.say(lazy, FromVmm::Want(mib(150)));
    let needy = world.up(definition("needy", 256, ""));
    for _ in 0..30 {
        world.say(needy, FromVmm::Want(mib(64)));
        world.report(lazy, Pages(0));
        world.report(needy, Pages(0));
        world.pass(SECOND);
    }
    let vm = world.vm("lazy");
    assert_eq!(vm.balloon, BalloonHealth::Stuck, "{vm:?}");
    let before = vm.grant;
    world.say(lazy, FromVmm::Want(mib(64)));
    for _ in 0..10 {
        world.pass(SECOND);
    }
    assert_eq!(world.vm("lazy").grant, before);
    let events = match world.answer(Request::Events) {
        Ok(Answer::Events(events)) => events,
        other => panic!("{other:?}"),
    };
    assert!(events.iter().any(|e| e.vm == Some(name("lazy")) && e.text.contains("stuck")));
}

#[test]
fn a_vmm_that_keeps_what_its_balloon_freed_is_called_stuck() {
    let mut world = World::new(256);
    let hoarder = world.up(definition("hoarder", 256, ""));
    world.say(hoarder, FromVmm::Want(mib(150)));
    world.say(hoarder, FromVmm::Want(Pages(0)));
    let needy = world.up(definition("needy", 256, ""));
    for _ in 0..30 {
        world.say(needy, FromVmm::Want(mib(64)));
        let claimed = world.balloons.get(&hoarder).copied().unwrap_or_default();
        world.report(hoarder, claimed);
        world.pass(SECOND);
    }
    let vm = world.vm("hoarder");
    assert!(vm.balloon_target > Bytes::ZERO && vm.ballooned == vm.balloon_target);
    assert_eq!(vm.balloon, BalloonHealth::Stuck, "{vm:?}");
}

#[test]
fn returning_more_than_was_granted_ends_the_vmm_and_hurts_nobody_else() {
    let mut world = World::new(640);
    let good = world.up(definition("good", 256, ""));
    let evil = world.up(definition("evil", 256, ""));
    let granted = world.granted[&evil];
    world.say(evil, FromVmm::Return(granted + Pages(1)));
    assert_eq!(world.killed, [evil]);
    assert_eq!(world.vm("evil").power, Power::Stopping);
    assert_eq!(world.vm("evil").grant, granted.bytes(), "charged until the process is gone");
    world.say(evil, FromVmm::Want(mib(100)));
    assert_eq!(world.vm("evil").grant, granted.bytes(), "nothing more is given");
    world.input(Input::Exited(evil, "signal 9".into()));
    let exit = world.vm("evil").exit.unwrap().to_string();
    assert!(exit.contains("broke the protocol"), "{exit}");
    assert_eq!(world.vm("good").grant, world.granted[&good].bytes());
}

#[test]
fn a_start_that_fails_leaves_no_trace() {
    let mut world = World::new(640);
    let before = world.host();
    let id = world.ask(Request::Create(Box::new(definition("a", 256, ""))));
    let run = RunId(world.core.last_run);
    let failure = Failure::new(FailureKind::Unfit, "kernel /k: cannot be opened");
    world.input(Input::Launched(run, Err(failure)));
    assert!(matches!(&world.answers[&id], Err(f) if f.text.contains("kernel /k")), "{:?}", world.answers);
    assert_eq!((world.host().free, world.forgotten.len()), (before.free, 1));
    assert!(world.answer(Request::Get(name("a"))).is_err());
    // The same after the VMM itself gave up, with a VM of that name known before.
    let old = world.up(definition("a", 128, ""));
    world.say(old, FromVmm::Exit(ExitReason::Shutdown));
    world.input(Input::Exited(old, "exit code 0".into()));
    let id = world.ask(Request::Create(Box::new(definition("a", 256, ""))));
    let run = RunId(world.core.last_run);
    world.input(Input::Launched(run, Ok(Started { pid: 7, missing_jail: vec![] })));
    world.say(run, FromVmm::Exit(ExitReason::Failed("no usable KVM".into())));
    world.input(Input::Exited(run, "exit code 1".into()));
    assert!(matches!(&world.answers[&id], Err(f) if f.text.contains("no usable KVM")));
    let vm = world.vm("a");
    assert_eq!((vm.size, vm.exit), (Bytes::mib(128), Some(Exit::Told(ExitReason::Shutdown))));
}

#[test]
fn a_name_twice_is_refused_while_the_first_is_on() {
    let mut world = World::new(640);
    let run = world.up(definition("a", 256, ""));
    let refused = world.answer(Request::Create(Box::new(definition("a", 128, "")))).unwrap_err();
    assert!(refused.kind == FailureKind::Conflict && refused.text.contains("is on"), "{}", refused.text);
    assert!(world.answer(Request::Forget(name("a"))).is_err());
    world.input(Input::Exited(run, "signal 11".into()));
    assert!(matches!(world.vm("a").exit, Some(Exit::Vanished(how)) if how == "signal 11"));
    world.up(definition("a", 128, ""));
    assert_eq!(world.vm("a").size, Bytes::mib(128));
}

#[test]
fn a_jail_part_that_is_missing_and_not_allowed_ends_the_vm() {
    let mut world = World::new(640);
    let id = world.ask(Request::Create(Box::new(definition("a", 256, ""))));
    let run = RunId(world.core.last_run);
    world.input(Input::Launched(run, Ok(Started { pid: 7, missing_jail: vec![] })));
    world.say(run, FromVmm::Running { missing_jail: vec![JailPart::Seccomp] });
    assert_eq!(world.killed, [run]);
    world.input(Input::Exited(run, "signal 9".into()));
    assert!(matches!(&world.answers[&id], Err(f) if f.text.contains("seccomp")));
}

#[test]
fn changes_are_checked_like_definitions_and_admitted_like_starts() {
    let mut world = World::new(640);
    world.up(definition("a", 256, ""));
    world.up(definition("b", 512, ""));
    let change =
        |reservation: u64| VmChange { reservation: Some(Bytes::mib(reservation)), ..VmChange::default() };
    assert!(world.answer(Request::Change(name("a"), change(120))).is_ok());
    assert_eq!(world.vm("a").reservation, Bytes::mib(120));
    let over = world.answer(Request::Change(name("a"), change(300))).unwrap_err();
    assert_eq!(over.kind, FailureKind::Invalid);
    let full = world.answer(Request::Change(name("b"), change(512))).unwrap_err();
    assert_eq!(full.kind, FailureKind::NoMemory);
    let limit = VmChange { limit: Some(Bytes::mib(128)), ..VmChange::default() };
    world.answer(Request::Change(name("b"), limit)).unwrap();
    let b = *world.core.runs.iter().find(|(_, n)| n.as_str() == "b").unwrap().0;
    for _ in 0..4 {
        world.pass(Duration::from_secs(1));
    }
    assert!(world.balloons[&b] >= mib(300), "as large as balloons get");
    world.say(b, FromVmm::Want(mib(512)));
    assert!(world.granted[&b] <= mib(128));
}

fn survivor(vm: &str, claim: u64, recorded: Option<u64>, kernel: u64) -> Adopted {
    let facts =
        Facts { grant: mib(claim), held: mib(claim), ram: (4096, Bytes::mib(256)), ..Facts::default() };
    Adopted {
        definition: definition(vm, 256, ""),
        started: Timestamp::UNIX_EPOCH,
        pid: 9,
        missing_jail: vec![],
        facts: Ok(facts),
        recorded: recorded.map(mib),
        kernel: KernelAccount { ram: Bytes::mib(kernel), process: Bytes::mib(kernel) },
    }
}

#[test]
fn an_adopted_vm_is_charged_its_claim_within_what_was_recorded_and_never_less_than_the_kernel_says() {
    for (claim, recorded, kernel, charge) in [
        (100, Some(100), 90, 100),
        (90, Some(100), 80, 90),
        (250, Some(100), 90, 100),
        (10, Some(100), 90, 90),
        (u64::MAX >> 30, None, 90, 256),
        (0, None, 200, 200),
    ] {
        let mut world = World::new(640);
        world.core.adopt(survivor("a", claim, recorded, kernel)).unwrap();
        assert_eq!(world.vm("a").grant, Bytes::mib(charge), "{claim} {recorded:?} {kernel}");
        assert!(world.core.ledger.adds_up());
    }
}

#[test]
fn a_vmm_of_another_version_is_named_and_only_killing_is_possible() {
    let mut world = World::new(640);
    let foreign = Adopted { facts: Err(foreign(99).unwrap()), ..survivor("a", 0, Some(100), 90) };
    let run = world.core.adopt(foreign).unwrap();
    let vm = world.vm("a");
    assert!(vm.note.is_some_and(|note| note.contains("version 99")));
    assert_eq!(vm.grant, Bytes::mib(100));
    assert!(world.answer(Request::Stop(name("a"))).unwrap_err().text.contains("version 99"));
    world.ask(Request::Kill(name("a")));
    assert_eq!(world.killed, [run]);
}

#[test]
fn a_vmm_that_says_it_ends_and_does_not_is_ended() {
    let mut world = World::new(640);
    let run = world.up(definition("a", 256, ""));
    world.say(run, FromVmm::Exit(ExitReason::Shutdown));
    world.input(Input::Closed(run));
    world.pass(SECOND);
    assert!(world.killed.is_empty());
    world.pass(LAST_GRACE);
    assert_eq!(world.killed, [run]);
    world.input(Input::Exited(run, "signal 9".into()));
    assert_eq!(world.vm("a").exit, Some(Exit::Told(ExitReason::Shutdown)));
}

#[test]
fn a_start_that_takes_long_is_answered_in_the_meantime() {
    let mut world = World::new(640);
    let id = world.ask(Request::Create(Box::new(definition("a", 256, ""))));
    world.pass(PATIENCE);
    assert!(matches!(&world.answers[&id], Ok(Answer::Vm(vm)) if vm.power == Power::Starting));
}

#[test]
fn a_start_waits_for_balloons_and_is_refused_in_the_end() {
    let mut world = World::new(256);
    let holder = world.up(definition("holder", 256, ""));
    world.say(holder, FromVmm::Want(mib(256)));
    let first = world.ask(Request::Create(Box::new(definition("b", 128, "reservation = '32MiB'"))));
    assert_eq!((world.vm("b").power, world.launches.len()), (Power::Starting, 1));
    let granted = world.granted[&holder];
    for _ in 0..5 {
        world.pass(SECOND);
        world.say(holder, FromVmm::Want(mib(8)));
    }
    assert_eq!(world.granted[&holder], granted, "what is to start it is not given away");
    assert!(world.balloons[&holder] > Pages::ZERO);
    follow(&mut world, holder);
    assert_eq!(world.launches.len(), 2);
    let kill = world.ask(Request::Kill(name("b")));
    let run = world.launches[1].0;
    world.input(Input::Launched(run, Err(Failure::new(FailureKind::Unfit, "no"))));
    assert!(world.answers[&first].is_err() && world.answers[&kill].is_ok());
    assert_eq!(world.vm("b").exit, Some(Exit::KilledByOperator));
    // The next time the holder does not follow.
    world.say(holder, FromVmm::Want(mib(256)));
    let second = world.ask(Request::Create(Box::new(definition("c", 128, "reservation = '64MiB'"))));
    world.pass(PATIENCE);
    assert!(matches!(&world.answers[&second], Err(f) if f.text.contains("free now")), "{:?}", world.answers);
    assert!(world.answer(Request::Get(name("c"))).is_err(), "nothing is half made");
    let third = world.ask(Request::Create(Box::new(definition("c", 128, "reservation = '64MiB'"))));
    let kill = world.ask(Request::Kill(name("c")));
    assert!(world.answers[&third].is_err() && world.answers[&kill].is_ok());
    assert_eq!(world.vm("c").power, Power::Off);
}

/// Anything that can happen to a core, with all numbers that a hostile VMM may send.
#[derive(Clone, Debug)]
enum Happening {
    Create(u8, u8),
    Launched(bool),
    Message(u8, FromVmm),
    Closed(u8),
    Exited(u8),
    Kill(u8),
    Change(u8, u64),
    Pass(u64),
}

fn any_pages() -> impl Strategy<Value = Pages> {
    prop_oneof![0..70_000u64, Just(u64::MAX), Just(u64::MAX / 2)].prop_map(Pages)
}

prop_compose! {
    fn any_facts()(p in prop::array::uniform6(any_pages()), n in any::<u64>(), driver: bool) -> Facts {
        let bytes = Bytes(n);
        let guest = plimsoll_protocol::control::GuestFacts { total: bytes, available: Bytes(n / 3), ..Default::default() };
        Facts {
            grant: p[0], held: p[1], wanted: p[2], ballooned: p[3], balloon_actual: p[4], balloon_target: p[5],
            balloon_driver: driver, faults: n, guest: Some(guest), ram: (n, bytes), ..Facts::default()
        }
    }
}

fn any_message() -> impl Strategy<Value = FromVmm> {
    prop_oneof![
        4 => any_pages().prop_map(FromVmm::Want),
        4 => any_pages().prop_map(FromVmm::Return),
        3 => any_facts().prop_map(FromVmm::Report),
        2 => Just(FromVmm::Running { missing_jail: vec![] }),
        1 => Just(FromVmm::Rebooted),
        1 => Just(FromVmm::Exit(ExitReason::Shutdown)),
        1 => any::<String>().prop_map(FromVmm::Notice),
        1 => any_facts().prop_map(|facts| FromVmm::Hello { version: 1, facts }),
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (0..5u8, 0..4u8).prop_map(|(vm, kind)| Happening::Create(vm, kind)),
        3 => prop::bool::weighted(0.8).prop_map(Happening::Launched),
        12 => (0..8u8, any_message()).prop_map(|(run, message)| Happening::Message(run, message)),
        1 => (0..8u8).prop_map(Happening::Closed),
        1 => (0..8u8).prop_map(Happening::Exited),
        1 => (0..5u8).prop_map(Happening::Kill),
        1 => (0..5u8, 0..300u64).prop_map(|(vm, mib)| Happening::Change(vm, mib)),
        3 => (0..3000u64).prop_map(Happening::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// `World::input` asserts after every input that the ledger adds up and that every grant told is a grant charged.
    #[test]
    fn no_course_of_events_breaks_the_ledger_or_a_limit(course in prop::collection::vec(happening(), 0..120)) {
        let mut world = World::new(640);
        for happening in course {
            let run = |run: u8| RunId(u64::from(run));
            let vm = |vm: u8| name(&format!("vm{vm}"));
            match happening {
                Happening::Create(vm, kind) => {
                    let more = ["", "reservation = '64MiB'", "limit = '96MiB'", "shares = 'high'"][usize::from(kind)];
                    world.ask(Request::Create(Box::new(definition(&format!("vm{vm}"), 256, more))));
                }
                Happening::Launched(good) => {
                    if let Some((run, _)) = world.launches.pop() {
                        let failure = Failure::new(FailureKind::Unfit, "no");
                        let started = Started { pid: 7, missing_jail: vec![] };
                        world.input(Input::Launched(run, if good { Ok(started) } else { Err(failure) }));
                    }
                }
                Happening::Message(id, message) => world.say(run(id), message),
                Happening::Closed(id) => world.input(Input::Closed(run(id))),
                Happening::Exited(id) => world.input(Input::Exited(run(id), "gone".into())),
                Happening::Kill(id) => { world.ask(Request::Kill(vm(id))); }
                Happening::Change(id, n) => {
                    let change = VmChange { reservation: Some(Bytes::mib(n)), ..VmChange::default() };
                    world.ask(Request::Change(vm(id), change));
                }
                Happening::Pass(ms) => world.pass(Duration::from_millis(ms)),
            }
            for (definition, run) in world.core.running() {
                let grant = world.core.ledger.account(run.id).grant;
                prop_assert!(grant <= limit(definition).max(reservation(definition)));
                prop_assert_eq!(grant, world.granted.get(&run.id).copied().unwrap_or_default());
            }
            let unheld = |(definition, run): (&VmDefinition, &Run)| {
                let grant = world.core.ledger.account(run.id).grant;
                if run.phase == Phase::Queued || !run.takes_part() { Pages::ZERO } else { reservation(definition).saturating_sub(grant) }
            };
            prop_assert!(world.core.ledger.free() >= world.core.running().map(unheld).sum());
            prop_assert_eq!(world.core.ledger.budget(), mib(640));
        }
    }
}
