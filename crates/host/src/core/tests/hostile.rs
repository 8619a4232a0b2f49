use plimsoll_protocol::control::MAX_NETS;

use super::happening::{Happening, Speech, course};
use super::*;

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
fn a_vmm_that_talks_without_end_pushes_out_no_events_of_others() {
    let mut world = World::new(640);
    world.up(definition("good", 256, ""));
    let evil = world.up(definition("evil", 256, ""));
    for n in 0..3000 {
        world.say(evil, FromVmm::Notice("noise".to_owned()));
        world.say(evil, FromVmm::Rebooted);
        world.say(evil, FromVmm::Report(Facts { balloon_driver: n % 2 == 0, ..Facts::default() }));
        world.pass(Duration::from_millis(10));
    }
    let events = world.core.events.after(0);
    let of = |vm: &str| events.iter().filter(|event| event.vm == Some(name(vm))).collect::<Vec<_>>();
    assert!(of("good").iter().any(|event| event.text == "runs"));
    assert!(of("evil").len() < 40, "{} events in 30 s", of("evil").len());
    assert!(
        of("evil").iter().any(|event| event.text.ends_with("events are left out: its VMM causes too many"))
    );
}

#[test]
fn a_longer_list_of_missing_parts_than_there_are_ends_the_vmm() {
    let mut world = World::new(640);
    let evil = world.up(definition("evil", 256, "[jail]\nallow_missing = ['uid']"));
    world.say(evil, FromVmm::Running { missing_jail: vec![JailPart::Uid; JailPart::COUNT] });
    assert_eq!(world.killed, []);
    world.say(evil, FromVmm::Running { missing_jail: vec![JailPart::Uid; JailPart::COUNT + 1] });
    assert_eq!(world.killed, [evil]);
}

#[test]
fn a_guest_reaches_ports_of_the_host_only_if_its_definition_has_vsock() {
    let mut world = World::new(640);
    let with = world.up(definition("with", 64, "[vsock]"));
    let without = world.up(definition("without", 64, ""));
    let mut dial = |run| {
        let message = Box::new(FromVmm::Dial { id: 7, port: 1024 });
        world.core.handle(world.clock, Input::Message(run, message))
    };
    let asked = dial(with);
    assert!(matches!(asked[..], [Effect::Dial { run, id: 7, port: 1024 }] if run == with), "{asked:?}");
    let refused = dial(without);
    let answer = ToVmm::Dialed { id: 7, connected: false };
    assert!(matches!(&refused[..], [Effect::Send(run, said)] if *run == without && *said == answer));
}

#[test]
fn a_port_that_cannot_be_reached_is_told_and_not_without_end() {
    let mut world = World::new(640);
    let a = world.up(definition("a", 64, "[vsock]"));
    for _ in 0..1000 {
        world.input(Input::NotDialed(a, 5000, "Too many open files (os error 24)".to_owned()));
    }
    let events = world.core.events.after(0);
    let text = "its guest was refused port 5000 of the host: Too many open files (os error 24)";
    let told = events.iter().filter(|event| event.text == text).count();
    assert!((1..40).contains(&told), "{told} events");
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
            balloon_driver: driver, compressed: p[1], store: p[2], swapped: p[3], zipped: n, unzipped: n / 2,
            swapped_out: p[4].0, swapped_in: n, blocked: driver, paused: n.is_multiple_of(5), paging_stuck: n.is_multiple_of(3), swap_failed: n.is_multiple_of(7),
            shared: p[5], zero: p[0], scanned: n, merged: p[1].0, zeroed: n, broken: p[2].0, mismatched: n,
            scan_cpu: Duration::from_nanos(n), mappings_full: driver, faults: n, stall_some: Duration::from_nanos(n),
            stall_full: Duration::new(n, 7), guest: Some(guest), ram: (n, bytes),
            sampling: SamplingFacts { executed: Duration::from_nanos(n), period: n % 5, now: sample(p[0].0, n, p[1]), last: sample(n, p[2].0, p[3]) },
            chunks: plimsoll_protocol::control::Chunks { empty: n, large: p[3].0, small: n / 2 }, reboots: u32::MAX, filtered: [n; MAX_NETS],
        }
    }
}

fn sample(a: u64, b: u64, arrived: Pages) -> SampleFacts {
    let sampled = Sampled { population: a, sampled: b, touched: a };
    SampleFacts {
        elapsed: Duration::from_millis(b),
        chunks: sampled,
        pages: sampled,
        inside: sampled,
        arrived,
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
        1 => (any::<u64>(), any::<u32>()).prop_map(|(id, port)| FromVmm::Dial { id, port }),
        1 => (any::<u8>(), any::<Result<u64, String>>())
            .prop_map(|(disk, outcome)| FromVmm::Resized { disk, outcome: outcome.map(Bytes) }),
        1 => any_facts().prop_map(|facts| FromVmm::Hello { version: 1, facts }),
    ]
}

fn any_speech() -> impl Strategy<Value = Speech> {
    prop_oneof![3 => Just(Speech::LookUp), 3 => Just(Speech::Offer), 2 => Just(Speech::GiveBack)]
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (0..5u8, 0..4u8).prop_map(|(vm, kind)| Happening::Create(vm, kind)),
        3 => prop::bool::weighted(0.8).prop_map(Happening::Launched),
        12 => (0..8u8, any_message()).prop_map(|(run, message)| Happening::Message(run, Box::new(message))),
        1 => (0..8u8).prop_map(Happening::Closed),
        1 => (0..8u8).prop_map(Happening::Exited),
        1 => (0..5u8).prop_map(Happening::Kill),
        1 => (0..5u8, 0..300u64).prop_map(|(vm, mib)| Happening::Change(vm, mib)),
        1 => (0..4u8, 0..4u8, 0..300u64).prop_map(|(pool, parent, mib)| Happening::Pool(pool, parent, mib)),
        1 => (0..5u8, 0..4u8).prop_map(|(vm, pool)| Happening::Move(vm, pool)),
        3 => (0..3000u64).prop_map(Happening::Pass),
        1 => (0..900u64).prop_map(Happening::Sustain),
        12 => (0..8u8, 0..8u8, any_speech(), prop::collection::vec((prop_oneof![0..40u32, Just(u32::MAX)], 0..12u8), 0..70))
            .prop_map(|(run, other, speech, pages)| Happening::Speak(run, if other < 5 { run } else { other }, speech, pages)),
        1 => (0..5u8, 0..5u8).prop_map(|(vm, sharing)| Happening::Sharing(vm, sharing)),
        4 => (0..6u8, 0..6u8).prop_map(|(orders, reports)| Happening::Work(orders, reports)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_course_of_events_breaks_the_ledger_or_a_limit(happenings in prop::collection::vec(happening(), 0..120), slow: bool) {
        course(happenings, slow);
    }
}
