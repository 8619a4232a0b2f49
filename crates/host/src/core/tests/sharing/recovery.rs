use super::*;
use crate::closing::Closing;
use crate::domains::{HeldReferences, Known};

#[test]
fn a_daemon_that_comes_after_another_knows_who_has_left() {
    for known_by in ["the last two domains", "those before"] {
        let mut before = World::new(640);
        let (a, b) = (before.in_domain("a", "prod"), before.in_domain("b", "prod"));
        let frame = before.share(a, b, 5);
        let spy = before.sharing[&a].1[0].try_clone().unwrap();
        let mut left = survivor(&mut before, a, &[]);
        left.definition.memory.sharing = Sharing::Off;
        left.references = None;
        if known_by == "those before" {
            left.former = std::mem::take(&mut left.domains);
        }
        let stays = survivor(&mut before, b, &[(5, frame)]);
        let mut world = World::new(640);
        let [_, b] = world.take_over([left, stays].map(Ok));
        let c = world.in_domain("c", "prod");
        world.share(b, c, 6);
        assert!(!sees(&spy, 6), "known by {known_by}");
    }
}

fn definition_in_prod(vm: &str) -> VmDefinition {
    let mut definition = definition(vm, 256, "");
    definition.memory.sharing = "prod".parse().unwrap();
    definition
}

/// A VM of `before` as the next daemon finds it, which claims to hold these frames.
fn survivor(before: &mut World, run: RunId, holds: &[(u32, FrameNo)]) -> Adopted {
    let (name, domain) = (before.core.name_of(run).unwrap(), before.domain(run));
    let known = Known { id: domain, name: Some("prod".parse().unwrap()) };
    let grant = before.granted[&run];
    Adopted {
        definition: definition_in_prod(name.as_str()),
        started: Timestamp::UNIX_EPOCH,
        pid: 9,
        missing_jail: vec![],
        remarks: vec![],
        recorded: Some(grant),
        swap: Pages(0),
        kernel: KernelAccount {
            ram: Bytes::mib(1),
            process: ProcessMemory { anonymous: Bytes::mib(1), shared: Bytes::mib(1) },
        },
        domains: vec![known.clone()],
        former: vec![],
        references: Some(HeldReferences {
            domain: known,
            pool: Closing::new(before.sharing[&run].1[0].try_clone().unwrap().into()),
            holds: holds.iter().map(|(page, frame)| (PageNo(*page), *frame)).collect(),
        }),
        facts: Facts { grant, held: grant, ram: (4096, Bytes::mib(256)), ..Facts::default() },
    }
}

impl World {
    /// Finds VMs of an earlier daemon. Those in `Err` do not answer.
    fn take_over<const N: usize>(&mut self, found: [Result<Adopted, Adopted>; N]) -> [RunId; N] {
        let known = found.map(|adopted| {
            let why = "its VMM has not answered yet";
            let vm = adopted.as_ref().unwrap_or_else(|adopted| adopted);
            (self.core.discover(World::discovered(vm, why)), adopted.ok())
        });
        let runs = known.map(|(run, adopted)| {
            if let Some(adopted) = adopted {
                self.input(Input::Reached(run, Box::new(adopted)));
            }
            run
        });
        self.pass(SECOND);
        runs
    }
}

#[test]
fn a_daemon_that_comes_after_another_takes_over_its_frames() {
    let mut before = World::new(640);
    let (a, b) = (before.in_domain("a", "prod"), before.in_domain("b", "prod"));
    let (five, six) = (before.share(a, b, 5), before.share(a, b, 6));
    let domain = before.domain(a);
    // Only `b` still refers to this one.
    before.give_back(a, &[(6, six)]);
    let survivors = [
        survivor(&mut before, a, &[(5, five)]),
        survivor(&mut before, b, &[(5, five), (6, six), (6, five), (7, FrameNo(99)), (8, FrameNo(u32::MAX))]),
    ];
    let free = before.host().free;
    let mut world = World::new(640);
    let [a, b] = world.take_over(survivors.map(Ok));
    assert_eq!((world.domain(a), world.domain(b)), (domain, domain), "they are told the same number again");
    let host = world.host();
    assert_eq!((host.frames, host.shared, host.free), (pages(2), pages(3), free));
    assert_eq!((world.frame(a, five), world.frame(a, six)), (content(5), content(6)));
    // It goes on as before: what is known is found, and what is new is made.
    assert_eq!(world.look_up(a, &[(9, hash(6))]), [Found::Frame(six)]);
    world.share(a, b, 7);
    world.give_back(b, &[(5, five), (6, six)]);
    world.give_back(a, &[(5, five), (9, six)]);
    assert_eq!(world.host().frames, pages(1));
}

#[test]
fn frames_stay_as_long_as_somebody_may_map_them_who_cannot_be_asked() {
    let mut before = World::new(640);
    let (a, b) = (before.in_domain("a", "prod"), before.in_domain("b", "prod"));
    let (five, six) = (before.share(a, b, 5), before.share(a, b, 6));
    let heard = survivor(&mut before, a, &[(5, five)]);
    let unheard = Adopted { references: None, ..survivor(&mut before, b, &[]) };
    let mut world = World::new(640);
    let [a, b] = world.take_over([Ok(heard), Err(unheard)]);
    (0..100).for_each(|_| world.pass(SECOND));
    assert_eq!(world.frame(a, six), content(6), "only the unreachable VM maps it");
    world.input(Input::Exited(b, "signal 9".into()));
    (0..100).for_each(|_| world.pass(SECOND));
    assert_eq!((world.frame(a, five), world.frame(a, six)), (content(5), content(0)));
    assert_eq!(world.host().frames, pages(1));
}

#[test]
fn a_vm_that_answers_late_brings_its_frames_with_it() {
    let mut before = World::new(640);
    let (a, b) = (before.in_domain("a", "prod"), before.in_domain("b", "prod"));
    let (five, six) = (before.share(a, b, 5), before.share(a, b, 6));
    let first = survivor(&mut before, a, &[(5, five)]);
    let late = survivor(&mut before, b, &[(6, six)]);
    let mut world = World::new(640);
    let b = world.core.discover(World::discovered(&late, "it is late"));
    let a = world.adopt(first);
    (0..100).for_each(|_| world.pass(SECOND));
    assert_eq!(world.frame(a, six), content(6));
    world.input(Input::Reached(b, Box::new(late)));
    (0..100).for_each(|_| world.pass(SECOND));
    assert_eq!((world.frame(a, five), world.frame(a, six)), (content(5), content(6)));
    assert_eq!(world.host().frames, pages(2));
    // Nothing is taken for unheard any more.
    world.input(Input::Exited(b, "signal 9".into()));
    (0..100).for_each(|_| world.pass(SECOND));
    assert_eq!((world.frame(a, six), world.host().frames), (content(0), pages(1)));
}

#[test]
fn a_vm_whose_run_record_cannot_be_read_may_map_any_frame() {
    let mut before = World::new(640);
    let (a, b) = (before.in_domain("a", "prod"), before.in_domain("b", "prod"));
    let (five, six) = (before.share(a, b, 5), before.share(a, b, 6));
    let first = survivor(&mut before, a, &[(5, five)]);
    let unknown = survivor(&mut before, b, &[]);
    let mut world = World::new(640);
    let found = Discovered { domains: None, ..World::discovered(&unknown, "its record is broken") };
    let b = world.core.discover(found);
    let a = world.adopt(first);
    (0..100).for_each(|_| world.pass(SECOND));
    assert_eq!(world.frame(a, six), content(6));
    world.input(Input::Exited(b, "signal 9".into()));
    (0..100).for_each(|_| world.pass(SECOND));
    assert_eq!((world.frame(a, five), world.frame(a, six)), (content(5), content(0)));
}

#[test]
fn a_vm_that_answers_late_shares_with_those_that_were_started_meanwhile() {
    let mut before = World::new(640);
    let (a, b) = (before.in_domain("a", "prod"), before.in_domain("b", "prod"));
    let five = before.share(a, b, 5);
    for shared_meanwhile in [false, true] {
        let late = survivor(&mut before, b, &[(5, five)]);
        let mut world = World::new(640);
        let b = world.core.discover(World::discovered(&late, "it is late"));
        let (c, d) = (world.in_domain("c", "prod"), world.in_domain("d", "prod"));
        if shared_meanwhile {
            world.share(c, d, 7);
        }
        world.input(Input::Reached(b, Box::new(late)));
        (0..100).for_each(|_| world.pass(SECOND));
        assert_eq!([world.domain(b), world.domain(c)], [world.domain(d); 2], "{shared_meanwhile}");
    }
}

#[test]
fn a_vm_that_brings_another_file_than_its_own_shares_nothing_with_anybody() {
    let mut before = World::new(640);
    let (a, b) = (before.in_domain("a", "prod"), before.in_domain("b", "prod"));
    let frame = before.share(a, b, 5);
    let mut evil = survivor(&mut before, b, &[(5, frame)]);
    // Its own window, which it can write to, in place of the frames.
    let window = before.sharing[&b].1[1].try_clone().unwrap();
    evil.references
        .iter_mut()
        .for_each(|references| references.pool = Closing::new(window.try_clone().unwrap().into()));
    let good = survivor(&mut before, a, &[(5, frame)]);
    let mut world = World::new(640);
    let [b, a] = world.take_over([evil, good].map(Ok));
    assert_eq!((world.vm("a").sharing.shared, world.vm("b").sharing.shared), (pages(1), Bytes::ZERO));
    assert_eq!(world.domain(a), world.domain(b), "from now on it may share as before");
}

#[test]
fn nothing_is_given_out_and_no_vm_is_ended_before_the_frames_of_adopted_vms_are_counted() {
    let mut before = World::new(640);
    let (a, b) = (before.in_domain("a", "prod"), before.in_domain("b", "prod"));
    let frame = before.share(a, b, 5);
    let survivors = [survivor(&mut before, a, &[(5, frame)]), survivor(&mut before, b, &[(5, frame)])];
    let mut world = World::new(640);
    world.slow = true;
    let [a, b] = world.take_over(survivors.map(Ok));
    let has = world.granted[&a];
    // By the kernel's account each maps more than it is granted.
    let process = ProcessMemory { anonymous: Bytes::ZERO, shared: Bytes::mib(1000) };
    for _ in 0..20 {
        world.pass(SECOND);
        world.input(Input::Processes(vec![(a, process)]));
        world.say(a, FromVmm::Want(mib(8)));
    }
    assert_eq!((world.killed.len(), world.granted[&a]), (0, has));
    assert!(!world.core.counts_frames_of(a) && !world.core.counts_frames_of(b));
    let waiting = world.ask(Request::Create(Box::new(definition("c", 64, ""))));
    assert_eq!(world.launches, []);
    world.catch_up();
    world.input(Input::Serve);
    assert!(world.core.counts_frames_of(a) && world.core.counts_frames_of(b));
    assert_eq!((world.host().frames, world.launches.len()), (pages(1), 1));
    assert!(world.granted[&a] > has && !world.answers.contains_key(&waiting));
    for _ in 0..20 {
        world.pass(SECOND);
        world.input(Input::Processes(vec![(a, process)]));
    }
    assert_eq!(world.killed, [a], "that is more than it can map");
}

#[test]
fn what_is_given_back_while_frames_are_taken_over_is_given_back() {
    let mut before = World::new(640);
    let (a, b) = (before.in_domain("a", "prod"), before.in_domain("b", "prod"));
    let frame = before.share(a, b, 5);
    let domain = before.domain(a);
    let survivors = [survivor(&mut before, a, &[(5, frame)]), survivor(&mut before, b, &[(5, frame)])];
    let mut world = World::new(640);
    world.slow = true;
    let [a, b] = world.take_over(survivors.map(Ok));
    world.give_back_in(a, domain, &[(5, frame)]);
    world.catch_up();
    world.slow = false;
    (0..100).for_each(|_| world.pass(SECOND));
    assert_eq!(world.vm("a").sharing.shared, Bytes::ZERO);
    world.give_back_in(b, domain, &[(5, frame)]);
    assert_eq!(world.host().frames, Bytes::ZERO);
}
