//! A daemon for several VMMs that share pages: the real index and frames of one domain, a ledger,
//! and a window for each.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "only tests use it")]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use plimsoll_protocol::control::{Facts, FromVmm, SHORTEST_SAMPLE_PERIOD, SamplingConfig, ToVmm};
use plimsoll_protocol::sharing::{DomainId, Found, MAX_BATCH, ScanBudget, SharingKind, WHOLE_CPU, WINDOW};
use plimsoll_sharing::{Domain, MemberId};
use plimsoll_units::{Bytes, FrameNo, PAGE_SIZE, PageDigest, PageNo, Pages, ReturnReason};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::daemon::{DEADLINE, Daemon, answer, model_config};

/// Guest memory of each VM.
pub const SIZE: Bytes = Bytes::mib(64);
/// Pages that may stay unshared for a while: one that is being sampled, and its like in other VMs.
pub const WATCHED: Pages = Pages(3);
/// Frames that there may be.
pub const LIMIT: Pages = Pages(1 << 16);
/// How long a VMM is listened to before it is the next one's turn.
const TURN: Duration = Duration::from_millis(1);

const DOMAIN: DomainId = DomainId(1);
/// As much as can be, so that tests are quick.
const SCAN: ScanBudget = ScanBudget { share: WHOLE_CPU, break_large: true };

/// The VMMs and what they share. A VMM that is gone is `None`.
pub struct Hub {
    pub vms: Vec<Option<Daemon>>,
    windows: Vec<File>,
    pub domain: Domain,
    /// Done, once, before the next answer to a look-up that names frames is sent to that VM.
    pub before_found: Option<(usize, String)>,
    /// Look-ups and offers that are still answered; the daemon dies at the one after them.
    pub answers_left: usize,
}

impl Hub {
    /// So many VMs with model guests that are ready and share nothing yet.
    pub fn start(vms: usize) -> Self {
        let start = || {
            let mut config = model_config(SIZE);
            config.sampling = SamplingConfig { samples: 1, period: SHORTEST_SAMPLE_PERIOD };
            let mut daemon = Daemon::start(config, Vec::new(), SIZE);
            daemon.until_said(0, "toucher: ready");
            Some(daemon)
        };
        let mut hub = Self {
            vms: (0..vms).map(|_| start()).collect(),
            windows: Vec::new(),
            domain: Domain::new(LIMIT).unwrap(),
            before_found: None,
            answers_left: usize::MAX,
        };
        hub.join_all();
        hub
    }

    fn join_all(&mut self) {
        self.windows = self.vms.iter().map(|_| window()).collect();
        for vm in self.living() {
            self.domain.join(member(vm), Pages::floor(SIZE)).unwrap();
        }
    }

    pub fn living(&self) -> Vec<usize> {
        (0..self.vms.len()).filter(|vm| self.vms[*vm].is_some()).collect()
    }

    pub fn vm(&mut self, vm: usize) -> &mut Daemon {
        self.vms[vm].as_mut().unwrap()
    }

    /// The VM shares pages from now on.
    pub fn share(&mut self, vm: usize) {
        let (pool, window) = (self.domain.pool().unwrap(), self.windows[vm].try_clone().unwrap());
        let key = self.domain.digest_key();
        let domain = SharingKind::Frames { domain: DOMAIN, limit: LIMIT, key };
        let message = ToVmm::Sharing { domain, scan: SCAN };
        self.vm(vm).wire().send(&message, &[pool.as_fd(), window.as_fd()]).unwrap();
    }

    /// The VM does something else from now on.
    pub fn unshare(&mut self, vm: usize, domain: SharingKind) {
        self.vm(vm).send(&ToVmm::Sharing { domain, scan: SCAN });
    }

    /// Hears all VMMs once and answers them.
    pub fn step(&mut self) {
        for vm in self.living() {
            self.vm(vm).step_within(TURN);
            while let Some((message, _)) = self.vms[vm].as_mut().and_then(|daemon| daemon.frames.pop_front())
            {
                self.obey(vm, message);
            }
        }
    }

    fn obey(&mut self, vm: usize, message: FromVmm) {
        if matches!(message, FromVmm::LookUp { .. } | FromVmm::Offer { .. }) {
            if self.answers_left == 0 {
                self.living().into_iter().for_each(|vm| self.vm(vm).disconnect());
                return;
            }
            self.answers_left -= 1;
        }
        match message {
            FromVmm::LookUp { domain: DOMAIN, id, pages } => self.look_up(vm, id, &pages),
            FromVmm::Offer { domain: DOMAIN, id, pages } => self.offer(vm, id, &pages),
            FromVmm::GiveBack { domain: DOMAIN, pages, mismatched } => {
                let given = self.domain.give_back(member(vm), &pages, ReturnReason::of(mismatched));
                assert_eq!(given.ignored, 0, "{vm} gives back what it does not hold: {pages:?}");
            }
            other => panic!("{other:?} at this point"),
        }
    }

    fn look_up(&mut self, vm: usize, id: u32, pages: &[(PageNo, PageDigest)]) {
        let found = self.domain.look_up(member(vm), pages).into_iter().map(|found| match found {
            plimsoll_sharing::Found::New => Found::New,
            plimsoll_sharing::Found::Frame(frame) => Found::Frame(frame),
            plimsoll_sharing::Found::Wanted => Found::Wanted,
            plimsoll_sharing::Found::Busy => Found::Busy,
        });
        let found: Vec<_> = found.collect();
        let names = found.iter().any(|found| matches!(found, Found::Frame(_)));
        if let Some((_, line)) = self.before_found.take_if(|(of, _)| *of == vm && names) {
            assert!(self.vm(vm).command(&line).starts_with("ok"));
        }
        self.say(vm, &ToVmm::Found { id, found });
    }

    fn offer(&mut self, vm: usize, id: u32, pages: &[(PageNo, PageDigest)]) {
        let window = self.windows[vm].try_clone().unwrap();
        let read = |at: usize, page: &mut [u8; 4096]| {
            window.read_exact_at(page, at as u64 * PAGE_SIZE).unwrap();
        };
        let paid = Pages(pages.len() as u64);
        let daemon = self.vm(vm);
        daemon.granted = daemon.granted.checked_sub(paid).expect("it offers what it has a grant for");
        let offered = self.domain.offer(member(vm), pages, read);
        assert!(offered.error.is_none());
        let back = paid - offered.created;
        self.vm(vm).granted += back;
        self.say(vm, &ToVmm::Grant(back));
        self.say(vm, &ToVmm::Offered { id, frames: offered.frames });
        for of in self.living() {
            let notices = offered.notices.iter().filter(|(to, ..)| *to == member(of));
            let pages: Vec<(PageNo, FrameNo)> = notices.map(|(_, page, frame)| (*page, *frame)).collect();
            for pages in pages.chunks(MAX_BATCH) {
                self.say(of, &ToVmm::Share { domain: DOMAIN, pages: pages.to_vec() });
            }
        }
        self.check_ledger();
    }

    /// What cannot be said, because the VMM has just ended, is not.
    fn say(&mut self, vm: usize, message: &ToVmm) {
        self.vm(vm).wire().send(message, &[]).ok();
    }

    /// Grants and frames together are never more than what the VMs had without sharing.
    fn check_ledger(&mut self) {
        let granted: u64 = self.living().into_iter().map(|vm| self.vm(vm).granted.0).sum();
        let most = Pages::floor(SIZE).0 * self.vms.len() as u64;
        assert!(granted + self.domain.stats().frames.0 <= most);
    }

    /// Goes on until `done`.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !done(self) {
            assert!(Instant::now() < deadline, "{what}: {:?}; {:?}", self.domain.stats(), self.all_facts());
            self.step();
        }
    }

    fn all_facts(&mut self) -> Vec<Facts> {
        self.living().into_iter().map(|vm| self.vm(vm).facts()).collect()
    }

    pub fn facts(&mut self, vm: usize) -> Facts {
        self.vm(vm).heard.clear();
        self.vm(vm).send(&ToVmm::Query);
        let mut found = None;
        self.until("report", |hub| {
            found = hub.vm(vm).heard.iter().find_map(|message| match message {
                FromVmm::Report(facts) => Some(*facts),
                _ => None,
            });
            found.is_some()
        });
        found.unwrap()
    }

    /// Types a command, without waiting for its answer. Returns what [`Hub::answer`] needs.
    pub fn type_line(&mut self, vm: usize, line: &str) -> usize {
        self.vm(vm).step_within(TURN);
        let from = self.vm(vm).said.len();
        self.vm(vm).type_line(line);
        from
    }

    /// Waits for the answer to `command`, which was typed when `from` bytes had been said.
    pub fn answer(&mut self, vm: usize, command: &str, from: usize) -> String {
        self.until("answer", |hub| answer(&hub.vm(vm).said[from..], command).is_some());
        answer(&self.vm(vm).said[from..], command).unwrap()
    }

    pub fn command(&mut self, vm: usize, line: &str) -> String {
        let from = self.type_line(vm, line);
        self.answer(vm, line, from)
    }

    /// Every page of every VM holds what it should.
    pub fn verify(&mut self) {
        for vm in self.living() {
            let said = self.command(vm, "verify");
            assert!(said.contains("mismatched=0"), "{vm}: {said}");
        }
    }

    /// Waits until `pages` pages of a VM are shared, but for [`WATCHED`], in its own account and in
    /// the domain's.
    pub fn until_shared(&mut self, vm: usize, pages: Pages) {
        self.until("shared pages", |hub| {
            let shared = hub.facts(vm).shared;
            let all = shared <= pages && shared >= pages.saturating_sub(WATCHED);
            all && hub.domain.member(member(vm)).unwrap().references == shared
        });
    }

    /// A new daemon takes the place of one that has died: it learns from the VMMs what they hold.
    pub fn take_over(&mut self) {
        let mut recovered = None;
        let mut held = Vec::new();
        for vm in self.living() {
            let facts = self.vm(vm).connect();
            let daemon = self.vm(vm);
            daemon.granted = facts.grant;
            let (pool, pages) = references(daemon);
            // What was named to it is held as well, used or not.
            assert!(facts.shared <= Pages(pages.len() as u64), "{vm} tells of less than it has");
            held.push((vm, pages));
            recovered.get_or_insert_with(|| Domain::recover(&pool).unwrap());
        }
        self.domain = recovered.unwrap();
        self.join_all();
        for (vm, pages) in held {
            assert_eq!(self.domain.hold(member(vm), &pages), Pages(pages.len() as u64));
        }
        self.domain.recovered();
        self.answers_left = usize::MAX;
        self.check_ledger();
        for vm in self.living() {
            // It has made do with its grant meanwhile.
            self.vm(vm).send(&ToVmm::Paging { level: None, block: false });
            self.share(vm);
        }
    }

    /// Whether the shared pages have `frames` frames, but for [`WATCHED`].
    pub fn has_frames(&self, frames: Pages) -> bool {
        let there = self.domain.stats().frames;
        there <= frames + WATCHED && there + WATCHED >= frames
    }

    /// Kills a VMM.
    pub fn kill(&mut self, vm: usize) {
        drop(self.vms[vm].take());
        self.domain.leave(member(vm));
    }
}

/// The first that a VMM says of frames: the pool, and what it holds.
fn references(daemon: &mut Daemon) -> (OwnedFd, Vec<(PageNo, FrameNo)>) {
    let mut pool = None;
    let mut held = Vec::new();
    daemon.until("references", |daemon| match daemon.frames.pop_front()? {
        (FromVmm::Pool(DOMAIN), mut fds) => {
            pool = fds.pop();
            None
        }
        (FromVmm::Holds { pages, last }, _) => {
            held.extend(pages);
            last.then_some(())
        }
        other => panic!("{other:?} at this point"),
    });
    (pool.unwrap(), held)
}

pub fn member(vm: usize) -> MemberId {
    MemberId(u32::try_from(vm).unwrap())
}

/// Memory that both sides have, and whose size neither can change.
fn window() -> File {
    let fd = rustix::fs::memfd_create(c"window", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&fd, WINDOW as u64 * PAGE_SIZE).unwrap();
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    File::from(fd)
}
