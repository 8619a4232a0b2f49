//! Page sharing, with a plane that carries orders out at once; [`crossing`] has a slow one.

mod bounds;
mod charge;
mod crossing;
mod leaving;
mod recovery;
mod scan;

use std::os::unix::fs::FileExt;

use plimsoll_protocol::sharing::{DomainId, Found, Sharing};
use plimsoll_protocol::status::DomainStatus;
use plimsoll_units::{FrameNo, PageDigest, PageNo};

use super::*;

/// A page of content `n`.
fn content(n: u8) -> [u8; 4096] {
    [n; 4096]
}

/// Stands for the digest of content `n`: see [`World::digest`].
fn hash(n: u8) -> u64 {
    n.into()
}

/// VMMs that share, as far as the core sees them.
impl World {
    fn in_domain(&mut self, vm: &str, sharing: &str) -> RunId {
        let mut definition = definition(vm, 256, "");
        definition.memory.sharing = sharing.parse().unwrap();
        self.up(definition)
    }

    fn domain(&self, run: RunId) -> DomainId {
        match self.sharing[&run].0 {
            SharingKind::Frames { domain, .. } => domain,
            other => panic!("{other:?}"),
        }
    }

    /// The digest of content `n` in a VM's domain; that of no page, where `n` is 256 or more.
    fn digest(&self, run: RunId, n: u64) -> PageDigest {
        match (self.sharing[&run].0, u8::try_from(n)) {
            (SharingKind::Frames { key, .. }, Ok(n)) => key.digest(&content(n)),
            _ => PageDigest(n.into()),
        }
    }

    fn look_up(&mut self, run: RunId, pages: &[(u32, u64)]) -> Vec<Found> {
        let domain = self.domain(run);
        self.look_up_in(run, domain, pages)
    }

    fn look_up_in(&mut self, run: RunId, domain: DomainId, pages: &[(u32, u64)]) -> Vec<Found> {
        let pages = pages.iter().map(|(page, hash)| (PageNo(*page), self.digest(run, *hash))).collect();
        self.say(run, FromVmm::LookUp { domain, id: 7, pages });
        match self.said.pop() {
            Some((to, ToVmm::Found { id: 7, found })) if to == run => found,
            other => panic!("{other:?}"),
        }
    }

    /// Offers pages of given contents under given digests.
    fn offer_in(&mut self, run: RunId, domain: DomainId, pages: &[(u32, u8, u64)]) -> Vec<Option<FrameNo>> {
        for (i, (_, n, _)) in pages.iter().enumerate() {
            self.sharing[&run].1[1].write_all_at(&content(*n), i as u64 * 4096).unwrap();
        }
        let pages = pages.iter().map(|(page, _, hash)| (PageNo(*page), self.digest(run, *hash))).collect();
        self.said.clear();
        self.say(run, FromVmm::Offer { domain, id: 8, pages });
        let answer =
            self.said.iter().position(|(to, said)| *to == run && matches!(said, ToVmm::Offered { .. }));
        match self.said.remove(answer.expect("it is answered")).1 {
            ToVmm::Offered { id: 8, frames } => frames,
            other => panic!("{other:?}"),
        }
    }

    fn offer(&mut self, run: RunId, pages: &[(u32, u8)]) -> Vec<Option<FrameNo>> {
        let domain = self.domain(run);
        let pages: Vec<_> = pages.iter().map(|(page, n)| (*page, *n, hash(*n))).collect();
        self.offer_in(run, domain, &pages)
    }

    fn give_back(&mut self, run: RunId, pages: &[(u32, FrameNo)]) {
        let domain = self.domain(run);
        self.give_back_in(run, domain, pages);
    }

    fn give_back_in(&mut self, run: RunId, domain: DomainId, pages: &[(u32, FrameNo)]) {
        let pages = pages.iter().map(|(page, frame)| (PageNo(*page), *frame)).collect();
        self.say(run, FromVmm::GiveBack { domain, pages, mismatched: false });
    }

    /// `a` and `b` come to share content `n` in their pages of that number.
    fn share(&mut self, a: RunId, b: RunId, n: u8) -> FrameNo {
        let page = u32::from(n);
        assert_eq!(self.look_up(a, &[(page, hash(n))]), [Found::New]);
        assert_eq!(self.look_up(b, &[(page, hash(n))]), [Found::Wanted]);
        let frame = self.offer(b, &[(page, n)])[0].expect("it is taken");
        let told = ToVmm::Share { domain: self.domain(a), pages: vec![(PageNo(page), frame)] };
        assert_eq!(self.said.pop(), Some((a, told)));
        frame
    }

    fn frame(&self, run: RunId, frame: FrameNo) -> [u8; 4096] {
        let mut page = [0; 4096];
        self.sharing[&run].1[0].read_exact_at(&mut page, u64::from(frame.0) * 4096).unwrap();
        page
    }

    fn domains(&mut self) -> Vec<DomainStatus> {
        match self.answer(Request::Sharing) {
            Ok(Answer::Sharing(domains)) => domains,
            other => panic!("{other:?}"),
        }
    }

    fn set_sharing(&mut self, vm: &str, sharing: &str) -> Result<Answer, Failure> {
        let change = VmChange { sharing: Some(sharing.parse().unwrap()), ..VmChange::default() };
        self.answer(Request::Change(name(vm), change))
    }
}

fn pages(n: u64) -> Bytes {
    Pages(n).bytes()
}

#[test]
fn equal_pages_become_a_frame_that_the_ledger_counts_until_the_last_page_needs_it_no_more() {
    let mut world = World::new(640);
    let (a, b) = (world.in_domain("a", "prod"), world.in_domain("b", "prod"));
    let (granted, free) = (world.granted[&b], world.host().free);
    let frame = world.share(a, b, 5);
    assert_eq!(world.frame(a, frame), content(5));
    assert_eq!(world.granted[&b], granted - Pages(1), "it pays for the frame");
    let host = world.host();
    assert_eq!((host.frames, host.shared, host.free), (pages(1), pages(2), free));
    let vm = world.vm("a").sharing;
    assert_eq!(
        (vm.with, vm.shared, vm.charged),
        (Sharing::With("prod".parse().unwrap()), pages(1), pages(1))
    );
    // A third page costs nothing but a reference.
    assert_eq!(world.look_up(b, &[(99, hash(5))]), [Found::Frame(frame)]);
    assert_eq!((world.host().frames, world.host().shared), (pages(1), pages(3)));
    let domain = world.domains();
    assert_eq!((domain.len(), domain[0].saved, domain[0].vms.len()), (1, pages(2), 2));
    world.give_back(a, &[(5, frame)]);
    world.give_back(b, &[(5, frame), (5, frame), (7, frame)]);
    assert_eq!(world.host().frames, pages(1), "what is not held does not count");
    world.give_back(b, &[(99, frame)]);
    assert_eq!((world.host().frames, world.host().free), (Bytes::ZERO, free + pages(1)));
}

#[test]
fn a_vm_that_dies_half_way_leaves_the_others_what_they_have() {
    let mut world = World::new(640);
    let (a, b) = (world.in_domain("a", "prod"), world.in_domain("b", "prod"));
    let frame = world.share(a, b, 5);
    // It dies before it reads that its offer was taken, and with hints that others may find.
    world.look_up(b, &[(6, hash(6)), (7, hash(7))]);
    world.input(Input::Exited(b, "signal 9".into()));
    assert_eq!((world.host().frames, world.host().shared), (pages(1), pages(1)));
    assert_eq!(world.frame(a, frame), content(5));
    assert_eq!(world.look_up(a, &[(6, hash(6))]), [Found::New], "a hint of a VM that is gone is dropped");
    let c = world.in_domain("c", "prod");
    assert_eq!(world.look_up(c, &[(1, hash(5)), (2, hash(7))]), [Found::Frame(frame), Found::New]);
    world.input(Input::Exited(a, "signal 9".into()));
    assert_eq!(world.frame(c, frame), content(5));
    world.input(Input::Exited(c, "signal 9".into()));
    (0..100).for_each(|_| world.pass(SECOND));
    assert_eq!(world.host().frames, Bytes::ZERO);
    assert_eq!(world.domains(), []);
}

/// Whether a process that has kept the file of a domain reads content `n` there.
fn sees(pool: &File, n: u8) -> bool {
    let mut page = [0; 4096];
    (0..64).any(|frame| pool.read_exact_at(&mut page, frame * 4096).is_ok() && page == content(n))
}

#[test]
fn what_a_vmm_does_not_hear_of_it_does_not_hold() {
    let mut world = World::new(640);
    let (a, b) = (world.in_domain("a", "prod"), world.in_domain("b", "prod"));
    let frame = world.share(a, b, 5);
    let domain = world.domain(a);
    world.input(Input::Unsent(a, domain, vec![(PageNo(5), frame)]));
    assert_eq!((world.vm("a").sharing.shared, world.host().frames), (Bytes::ZERO, pages(1)));
}

#[test]
fn a_few_domains_are_tidied_at_a_time_and_all_in_turn() {
    let mut world = World::new(4096);
    let pairs: Vec<[RunId; 2]> = (0..10)
        .map(|i| ["a", "b"].map(|vm| world.in_domain(&format!("{vm}{i}"), &format!("d{i}"))))
        .collect();
    for &[a, b] in &pairs {
        world.share(a, b, 5);
    }
    world.core.urgent = false;
    for &[_, b] in &pairs {
        world.input(Input::Exited(b, "signal 9".into()));
    }
    let mut left = vec![world.plane.untidy()];
    while *left.last().unwrap() > 0 {
        world.clock.now += Duration::from_millis(100);
        world.core.control();
        world.input(Input::Tick);
        left.push(world.plane.untidy());
        assert!(left.len() < 1000, "{left:?}");
    }
    assert!(left.windows(2).all(|two| two[0] - two[1] <= 4), "{left:?}");
    assert!(left[0] >= 6 && left.len() > 3, "{left:?}");
}
