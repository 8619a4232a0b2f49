//! What can happen to a core, and what must hold whatever has happened.

use std::os::unix::fs::FileExt;

use plimsoll_units::{FrameNo, PageNo};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

/// Anything that can happen to a core, with all numbers that a hostile VMM may send.
#[derive(Clone, Debug)]
pub(super) enum Happening {
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
pub(super) enum Speech {
    LookUp,
    Offer,
    GiveBack,
}

/// Has all of `happenings` happen to a core that is new. The plane does nothing by itself if it is
/// `slow`.
///
/// `World::input` asserts after every input that the ledger adds up and that every grant told is a
/// grant charged.
pub(super) fn course(happenings: impl IntoIterator<Item = Happening>, slow: bool) {
    let mut world = World::new(640);
    world.slow = slow;
    let (mut sustained, mut taken) = (mib(640), false);
    for happening in happenings {
        let run = |run: u8| RunId(u64::from(run));
        let vm = |vm: u8| name(&format!("vm{vm}"));
        match happening {
            Happening::Create(vm, kind) => {
                let more =
                    ["", "reservation = '64MiB'", "limit = '96MiB'", "shares = 'high'"][usize::from(kind)];
                let mut definition = definition(&format!("vm{vm}"), 256, more);
                definition.memory.sharing = SHARINGS[usize::from((vm + kind) % 3)].parse().unwrap();
                world.ask(Request::Create(Box::new(definition)));
            }
            Happening::Speak(id, other, speech, pages) => {
                speak(&mut world, run(id), run(other), speech, &pages)
            }
            Happening::Sharing(id, sharing) => {
                world.ask(Request::Change(vm(id), read(json!({"sharing": SHARINGS[usize::from(sharing)]}))));
            }
            Happening::Launched(good) => {
                if let Some((run, _)) = world.launches.pop() {
                    let failure = Failure::new(FailureKind::Unfit, "no");
                    let outcome = if good { Ok(Started::example()) } else { Err(failure) };
                    world.input(Input::Launched(run, outcome));
                }
            }
            Happening::Message(id, message) => world.say(run(id), *message),
            Happening::Closed(id) => world.input(Input::Closed(run(id))),
            Happening::Exited(id) => world.input(Input::Exited(run(id), "gone".into())),
            Happening::Kill(id) => {
                world.ask(Request::Kill(vm(id)));
            }
            Happening::Change(id, n) => {
                let change = VmChange { reservation: Some(Bytes::mib(n)), ..VmChange::default() };
                world.ask(Request::Change(vm(id), change));
            }
            Happening::Pool(pool, parent, mib) => {
                let parent = if parent == pool { "/".to_owned() } else { format!("p{parent}") };
                let (name, limit) = (format!("p{pool}"), Bytes::mib(mib));
                let new = json!({"name": name, "reservation": Bytes::mib(mib / 4), "limit": limit});
                if world.answer(Request::CreatePool(read(new))).is_err() {
                    let change = read(json!({"parent": parent, "limit": limit}));
                    world.ask(Request::ChangePool(name.parse().unwrap(), change));
                }
            }
            Happening::Move(id, pool) => {
                world.ask(Request::Change(vm(id), read(json!({"pool": format!("p{pool}")}))));
            }
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
            assert!(grant <= limit(definition).max(reservation(definition)));
            assert_eq!(grant, world.granted.get(&run.id).copied().unwrap_or_default());
        }
        let unheld = |(definition, run): (&VmDefinition, &Run)| {
            let grant = world.core.ledger.account(run.id).grant;
            if run.is_queued() || !run.takes_part() {
                Pages::ZERO
            } else {
                reservation(definition).saturating_sub(grant)
            }
        };
        // What was reserved may be lost to others, until they give it back and VMs do. What is
        // a frame may be in use by others as long as its own VM uses it, too.
        let there = world.core.ledger.free() + world.core.ledger.frames();
        assert!(taken || there >= world.core.running().map(unheld).sum());
        let parts: Pages = world.core.running().map(|(_, run)| world.core.part(run.id)).sum();
        let frames = world.core.ledger.frames();
        assert!(
            parts <= frames + Pages(16)
                && world.core.running().all(|(_, run)| world.core.references(run.id) <= mib(256))
        );
        let spent = world.core.ledger.granted() + world.core.ledger.overhead() + frames;
        assert_eq!(world.core.ledger.budget(), sustained.max(spent));
        let pledged: Pages =
            world.core.running().map(|(_, run)| world.core.ledger.account(run.id).pledged).sum();
        assert!(world.plane.frames() <= frames + pledged, "memory of frames is promised to nobody else");
    }
    world.catch_up();
}

/// What a client of the API says.
fn read<T: DeserializeOwned>(said: Value) -> T {
    serde_json::from_value(said).unwrap()
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
