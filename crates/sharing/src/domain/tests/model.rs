use std::collections::{BTreeMap, BTreeSet};

use plimsoll_units::FrameNo;
use proptest::prelude::*;

use super::*;
use crate::Offered;

/// Pages of each member here.
const PAGES: u32 = 6;
/// Contents that pages can have, two of each digest.
const WORDS: u64 = 8;

fn weak(_: &DigestKey, page: &Page) -> PageDigest {
    hash_of(page[0].into()).digest()
}

fn hash_of(word: u64) -> u64 {
    word % (WORDS / 2) + 1
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Hint(MemberId, u32),
    Frame(FrameNo),
}

/// What the domain should know, as plain maps, and what the members have in their memory.
#[derive(Debug, Default)]
struct Model {
    known: BTreeMap<u64, Known>,
    references: BTreeMap<(MemberId, u32), FrameNo>,
    /// Which member made each frame that no other has confirmed; what members may come to confirm;
    /// and which members said of a frame that it is not what they have.
    makers: BTreeMap<FrameNo, MemberId>,
    uncompared: BTreeMap<MemberId, Vec<(u32, FrameNo)>>,
    accused: BTreeMap<FrameNo, BTreeSet<MemberId>>,
    memory: BTreeMap<(MemberId, u32), u64>,
}

impl Model {
    fn look_up(&mut self, member: MemberId, page: u32, hash: u64) -> Found {
        for (page, frame) in self.uncompared.remove(&member).unwrap_or_default() {
            if self.references.get(&(member, page)) == Some(&frame) {
                self.makers.remove(&frame);
            }
        }
        if page >= PAGES || self.references.contains_key(&(member, page)) {
            return Found::Busy;
        }
        let own = Known::Hint(member, page);
        match self.known.get(&hash).copied() {
            Some(Known::Frame(frame)) => {
                self.forget(own);
                self.references.insert((member, page), frame);
                if self.makers.get(&frame).is_some_and(|maker| *maker != member) {
                    self.uncompared.entry(member).or_default().push((page, frame));
                }
                Found::Frame(frame)
            }
            Some(other) if other != own => {
                self.forget(own);
                Found::Wanted
            }
            _ => {
                self.forget(own);
                self.known.insert(hash, own);
                Found::New
            }
        }
    }

    /// Whether the offer should be taken, and whether with a new frame.
    fn offer(&self, member: MemberId, page: u32, hash: u64, word: u64) -> (bool, bool) {
        if page >= PAGES || self.references.contains_key(&(member, page)) {
            return (false, false);
        }
        match self.known.get(&hash) {
            Some(Known::Frame(_)) => (true, false),
            Some(other) if *other != Known::Hint(member, page) => {
                (hash_of(word) == hash, hash_of(word) == hash)
            }
            _ => (false, false),
        }
    }

    fn refer(&mut self, member: MemberId, page: u32, frame: FrameNo) {
        self.forget(Known::Hint(member, page));
        assert!(self.references.insert((member, page), frame).is_none());
    }

    fn give_back(&mut self, member: MemberId, page: u32, frame: FrameNo, mismatched: bool) -> bool {
        let held = self.references.get(&(member, page)) == Some(&frame);
        if held {
            if mismatched && self.makers.get(&frame) != Some(&member) {
                let accused = self.accused.entry(frame).or_default();
                accused.insert(member);
                if accused.len() == 2 {
                    self.forget(Known::Frame(frame));
                }
            }
            self.references.remove(&(member, page));
            self.forget_unused();
        }
        held
    }

    fn leave(&mut self, member: MemberId) {
        self.uncompared.remove(&member);
        self.references.retain(|(of, _), _| *of != member);
        self.known.retain(|_, known| !matches!(known, Known::Hint(of, _) if *of == member));
        self.forget_unused();
    }

    fn forget(&mut self, known: Known) {
        self.known.retain(|_, other| *other != known);
    }

    fn forget_unused(&mut self) {
        let references = &self.references;
        self.known.retain(|_, known| match known {
            Known::Frame(frame) => references.values().any(|used| used == frame),
            Known::Hint(..) => true,
        });
        self.accused.retain(|frame, _| references.values().any(|used| used == frame));
    }
}

/// A, B: keep to the rules. C: does not.
#[derive(Clone, Debug)]
enum Step {
    /// An honest member looks at a page: looks it up, offers it where it is wanted, compares before
    /// it maps.
    Scan(MemberId, u32),
    /// An honest member's guest writes; a page that was shared is its own again first.
    Write(MemberId, u32, u64),
    LookUp(u32, u64),
    Offer(u32, u64, u64),
    GiveBack(u32, u32, bool),
    Rejoin(MemberId),
    Tidy,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let honest = prop::sample::select(vec![A, B]);
    let (page, any_page) = (0..PAGES, 0..PAGES + 1);
    let step = prop_oneof![
        8 => (honest.clone(), page.clone()).prop_map(|(m, p)| Step::Scan(m, p)),
        4 => (honest, page, 0..WORDS).prop_map(|(m, p, w)| Step::Write(m, p, w)),
        2 => (any_page.clone(), 0..6u64).prop_map(|(p, h)| Step::LookUp(p, h)),
        3 => (any_page.clone(), 0..6u64, 0..WORDS).prop_map(|(p, h, w)| Step::Offer(p, h, w)),
        3 => (any_page, 0..8u32, any::<bool>()).prop_map(|(p, f, m)| Step::GiveBack(p, f, m)),
        1 => prop::sample::select(vec![A, B, C]).prop_map(Step::Rejoin),
        1 => Just(Step::Tidy),
    ];
    // Fewer than it takes to lose the domain's trust.
    prop::collection::vec(step, 1..100)
}

/// The domain and what should be true of it.
struct Both {
    domain: Domain,
    model: Model,
}

impl Both {
    fn look_up(&mut self, member: MemberId, page: u32, hash: u64) -> Found {
        let found = self.domain.ask(member, page, hash);
        assert_eq!(found, self.model.look_up(member, page, hash));
        found
    }

    fn offer(&mut self, member: MemberId, page: u32, hash: u64, word: u64) -> Offered {
        let (taken, new) = self.model.offer(member, page, hash, word);
        let offered = self.domain.bring(member, page, hash, &super::page(word));
        assert_eq!((offered.frames[0].is_some(), offered.created), (taken, Pages(new.into())));
        if let Some(frame) = offered.frames[0] {
            self.model.refer(member, page, frame);
            if new {
                let Some(Known::Hint(owner, theirs)) = self.model.known.insert(hash, Known::Frame(frame))
                else {
                    panic!("made without need")
                };
                assert_eq!(offered.notices, [(owner, PageNo(theirs), frame)]);
                self.model.refer(owner, theirs, frame);
                self.model.makers.insert(frame, member);
                self.compare(owner, theirs, frame);
            }
        }
        offered
    }

    /// An honest member compares a frame with its page, and gives back what is not alike.
    fn compare(&mut self, member: MemberId, page: u32, frame: FrameNo) {
        if member != C && self.domain.content(frame) != super::page(self.word(member, page)) {
            self.give_back(member, page, frame, true);
        }
    }

    fn give_back(&mut self, member: MemberId, page: u32, frame: FrameNo, mismatched: bool) {
        let held = self.model.give_back(member, page, frame, mismatched);
        let given = self.domain.give_back(member, &[(PageNo(page), frame)], ReturnReason::of(mismatched));
        assert_eq!((given.accepted, given.ignored), (held.into(), (!held).into()));
    }

    fn word(&self, member: MemberId, page: u32) -> u64 {
        self.model.memory.get(&(member, page)).copied().unwrap_or(0)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Scan(member, page) => {
                let word = self.word(member, page);
                let frame = match self.look_up(member, page, hash_of(word)) {
                    Found::Frame(frame) => Some(frame),
                    Found::Wanted => self.offer(member, page, hash_of(word), word).frames[0],
                    Found::New | Found::Busy => None,
                };
                frame.into_iter().for_each(|frame| self.compare(member, page, frame));
            }
            Step::Write(member, page, word) => {
                if let Some(frame) = self.model.references.get(&(member, page)).copied() {
                    self.give_back(member, page, frame, false);
                }
                self.model.memory.insert((member, page), word);
            }
            Step::LookUp(page, hash) => drop(Box::new(self.look_up(C, page, hash))),
            Step::Offer(page, hash, word) => drop(self.offer(C, page, hash, word)),
            Step::GiveBack(page, frame, mismatched) => self.give_back(C, page, FrameNo(frame), mismatched),
            Step::Rejoin(member) => {
                self.domain.leave(member);
                self.model.leave(member);
                self.domain.join(member, Pages(PAGES.into())).unwrap();
            }
            Step::Tidy => drop(Box::new(self.domain.tidy())),
        }
    }

    fn check(&mut self) {
        self.domain.audit();
        assert_eq!(self.domain.stats().references, Pages(self.model.references.len() as u64));
        let hints = self.model.known.values().filter(|known| matches!(known, Known::Hint(..))).count();
        assert_eq!(self.domain.stats().hints, Pages(hints as u64));
        // No guest of an honest member ever sees anything but what it wrote.
        for ((member, page), frame) in &self.model.references {
            if *member != C {
                assert_eq!(self.domain.content(*frame), super::page(self.word(*member, *page)));
            }
        }
    }
}

proptest! {
    #[test]
    fn the_domain_does_what_plain_maps_do_whatever_a_member_says(steps in steps()) {
        let limit = Pages(100);
        let domain = Domain::with_pool(Pool::new(limit).unwrap(), limit, weak).unwrap();
        let mut both = Both { domain, model: Model::default() };
        [A, B, C].into_iter().for_each(|member| both.domain.join(member, Pages(PAGES.into())).unwrap());
        for step in steps {
            both.step(step);
            both.check();
        }
        both.domain.dissolve();
    }
}
