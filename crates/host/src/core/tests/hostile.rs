use std::os::unix::fs::FileExt;

use plimsoll_units::{FrameNo, PageNo};
use serde_json::json;

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

/// Anything that can happen to a core, with all numbers that a hostile VMM may send.
#[derive(Clone, Debug)]
enum Happening {
    Create(u8, u8),
    Launched(bool),
    Message(u8, Box<FromVmm>),
    Closed(u8),
    Exited(u8),
    Kill(u8),
    Change(u8, u64),
    Pool(u8, u8, u64),
    Move(u8, u8),
    Pass(u64),
    /// The machine has this many MiB for VMs now.
    Sustain(u64),
    /// A VMM speaks of pages, in the domain that another VM is in; its window shows pages of these
    /// contents.
    Speak(u8, u8, Speech, Vec<(u32, u8)>),
    /// A VM shares with others now.
    Sharing(u8, u8),
    /// The plane carries out some orders, and the core hears some reports.
    Work(u8, u8),
}

/// What a VMM says of pages.
#[derive(Clone, Copy, Debug)]
enum Speech {
    LookUp,
    Offer,
    GiveBack,
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
            swapped_out: p[4].0, swapped_in: n, blocked: driver, paging_stuck: n.is_multiple_of(3), swap_failed: n.is_multiple_of(7),
            shared: p[5], zero: p[0], scanned: n, merged: p[1].0, zeroed: n, broken: p[2].0, mismatched: n,
            scan_cpu: Duration::from_nanos(n), mappings_full: driver, faults: n, stall_some: Duration::from_nanos(n),
            stall_full: Duration::new(n, 7), guest: Some(guest), ram: (n, bytes),
            sampling: SamplingFacts { executed: Duration::from_nanos(n), period: n % 5, now: sample(p[0].0, n, p[1]), last: sample(n, p[2].0, p[3]) },
            chunks: plimsoll_protocol::control::Chunks { empty: n, large: p[3].0, small: n / 2 }, reboots: u32::MAX,
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
        1 => any_facts().prop_map(|facts| FromVmm::Hello { version: 1, facts }),
    ]
}

fn any_speech() -> impl Strategy<Value = Speech> {
    prop_oneof![3 => Just(Speech::LookUp), 3 => Just(Speech::Offer), 2 => Just(Speech::GiveBack)]
}

const SHARINGS: [&str; 5] = ["prod", "test", "own", "zero", "off"];

/// What a VMM says of these pages: true of two in three of them where it offers.
fn speak(world: &mut World, run: RunId, other: RunId, speech: Speech, pages: &[(u32, u8)]) {
    let domain = |run| match world.sharing.get(&run) {
        Some((SharingKind::Frames { domain, key, .. }, fds)) => Some((*domain, *key, fds)),
        _ => None,
    };
    let (Some((_, key, fds)), Some((domain, ..))) = (domain(run), domain(other)) else { return };
    for (i, (_, n)) in pages.iter().enumerate().take(64) {
        fds[1].write_all_at(&[n % 4; 4096], i as u64 * 4096).unwrap();
    }
    let digests = pages.iter().map(|(page, n)| (PageNo(*page), key.digest(&[n / 3; 4096]))).collect();
    let frames = || pages.iter().map(|(page, n)| (PageNo(*page), FrameNo((*n).into()))).collect();
    world.say(
        run,
        match speech {
            Speech::LookUp => FromVmm::LookUp { domain, id: 0, pages: digests },
            Speech::Offer => FromVmm::Offer { domain, id: 0, pages: digests },
            Speech::GiveBack => {
                FromVmm::GiveBack { domain, pages: frames(), mismatched: pages.len().is_multiple_of(2) }
            }
        },
    );
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

    /// `World::input` asserts after every input that the ledger adds up and that every grant told
    /// is a grant charged.
    #[test]
    fn no_course_of_events_breaks_the_ledger_or_a_limit(course in prop::collection::vec(happening(), 0..120), slow: bool) {
        let mut world = World::new(640);
        world.slow = slow;
        let (mut sustained, mut taken) = (mib(640), false);
        for happening in course {
            let run = |run: u8| RunId(u64::from(run));
            let vm = |vm: u8| name(&format!("vm{vm}"));
            match happening {
                Happening::Create(vm, kind) => {
                    let more = ["", "reservation = '64MiB'", "limit = '96MiB'", "shares = 'high'"][usize::from(kind)];
                    let mut definition = definition(&format!("vm{vm}"), 256, more);
                    definition.memory.sharing = SHARINGS[usize::from((vm + kind) % 3)].parse().unwrap();
                    world.ask(Request::Create(Box::new(definition)));
                }
                Happening::Speak(id, other, speech, pages) => speak(&mut world, run(id), run(other), speech, &pages),
                Happening::Sharing(id, sharing) => {
                    drop(world.set(vm(id).as_str(), json!({"sharing": SHARINGS[usize::from(sharing)]})));
                }
                Happening::Launched(good) => {
                    if let Some((run, _)) = world.launches.pop() {
                        let failure = Failure::new(FailureKind::Unfit, "no");
                        let started = Started { pid: 7, missing_jail: vec![], remarks: vec![], swap: Pages(0) };
                        world.input(Input::Launched(run, if good { Ok(started) } else { Err(failure) }));
                    }
                }
                Happening::Message(id, message) => world.say(run(id), *message),
                Happening::Closed(id) => world.input(Input::Closed(run(id))),
                Happening::Exited(id) => world.input(Input::Exited(run(id), "gone".into())),
                Happening::Kill(id) => { world.ask(Request::Kill(vm(id))); }
                Happening::Change(id, n) => {
                    let change = VmChange { reservation: Some(Bytes::mib(n)), ..VmChange::default() };
                    world.ask(Request::Change(vm(id), change));
                }
                Happening::Pool(pool, parent, mib) => {
                    let parent = if parent == pool { "/".to_owned() } else { format!("p{parent}") };
                    let reservation = Bytes::mib(mib / 4);
                    let pool = json!({"name": format!("p{pool}"), "reservation": reservation, "limit": Bytes::mib(mib)});
                    let name = pool["name"].as_str().unwrap().to_owned();
                    if world.pool(pool).is_err() {
                        drop(world.set_pool(&name, json!({"parent": parent, "limit": Bytes::mib(mib)})));
                    }
                }
                Happening::Move(id, pool) => drop(world.set(vm(id).as_str(), json!({"pool": format!("p{pool}")}))),
                Happening::Sustain(n) => {
                    world.input(usable_input(Bytes::mib(n)));
                    sustained = mib(n).min(mib(640));
                    taken |= sustained < mib(640);
                }
                Happening::Work(orders, reports) => {
                    for _ in 0..orders {
                        world.carry_out();
                    }
                    for _ in 0..reports {
                        world.hear();
                    }
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
                if run.is_queued() || !run.takes_part() { Pages::ZERO } else { reservation(definition).saturating_sub(grant) }
            };
            // What was reserved may be lost to others, until they give it back and VMs do. What is
            // a frame may be in use by others as long as its own VM uses it, too.
            let there = world.core.ledger.free() + world.core.ledger.frames();
            prop_assert!(taken || there >= world.core.running().map(unheld).sum());
            let parts: Pages = world.core.running().map(|(_, run)| world.core.part(run.id)).sum();
            let frames = world.core.ledger.frames();
            prop_assert!(parts <= frames + Pages(16) && world.core.running().all(|(_, run)| world.core.references(run.id) <= mib(256)));
            let spent = world.core.ledger.granted() + world.core.ledger.overhead() + frames;
            prop_assert_eq!(world.core.ledger.budget(), sustained.max(spent));
            let pledged: Pages =
                world.core.running().map(|(_, run)| world.core.ledger.account(run.id).pledged).sum();
            prop_assert!(world.plane.frames() <= frames + pledged, "memory of frames is promised to nobody else");
        }
        world.catch_up();
    }
}
