//! The model's host: asked for grants, it gives what it likes, takes back what it can, and has the
//! VM's pages taken when it has nothing left to give.

use std::sync::PoisonError;

use plimsoll_units::{PAGE_SIZE, Pages, Ppn};
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;

use crate::Error;
use crate::account::GrantSource;
use crate::address::HostRange;
use crate::model_check::kernel::{BASE, kernel};
use crate::pmap::Pmap;
use crate::sync::lock;

/// See the module's documentation.
pub(super) struct Host {
    desk: Mutex<Desk>,
    news: Condvar,
}

struct Desk {
    /// What the VM was granted.
    ledger: Pages,
    /// What it may be granted.
    budget: Pages,
    wanted: Pages,
    /// What the VM has given for frames that were not made.
    owed: Pages,
    /// The pager is asked for what is wanted.
    short: bool,
    closed: bool,
}

/// What the VM wants, how much there is, and what it is to have back.
struct Wish {
    wanted: Pages,
    left: Pages,
    owed: Pages,
}

impl GrantSource for Host {
    fn want(&self, total: Pages) {
        lock(&self.desk).wanted = total;
        self.news.notify_all();
    }

    fn trouble(&self, what: Error) {
        match what {
            Error::SwapWrite { .. } => {}
            // In production the VM must be stopped, for the device has said that it cannot. Here it
            // can the next time.
            Error::SwapRead { ppn, .. } => kernel().wake(page_of(ppn)),
            other => panic!("{other}"),
        }
    }
}

fn page_of(ppn: Ppn) -> HostRange {
    HostRange { start: BASE as u64 + ppn.0 * PAGE_SIZE, len: PAGE_SIZE }
}

impl Host {
    /// Of `budget` pages, `granted` are the VM's from the start.
    pub(super) fn new(budget: Pages, granted: Pages) -> Self {
        let desk = Desk {
            ledger: granted,
            budget,
            wanted: Pages::ZERO,
            owed: Pages::ZERO,
            short: false,
            closed: false,
        };
        Self { desk: Mutex::new(desk), news: Condvar::new() }
    }

    /// Grants until the host is closed.
    pub(super) fn grant(&self, pmap: &Pmap) {
        while let Some(Wish { wanted, left, owed }) = self.next_wish() {
            let answer = match thread_rng().gen_range(0..4) {
                0 => Pages::ZERO,
                1 => Pages(thread_rng().gen_range(0..=wanted.0)),
                _ => wanted,
            };
            let answer = answer.min(left);
            pmap.add_grant(answer + owed);
            let back =
                thread_rng().gen_bool(0.25).then(|| pmap.return_grant(Pages(thread_rng().gen_range(0..2))));
            let mut desk = lock(&self.desk);
            desk.ledger = desk.ledger + answer - back.unwrap_or_default();
            desk.short |= desk.ledger == desk.budget;
            drop(desk);
            self.news.notify_all();
            self.agrees(pmap);
            // Otherwise a thread that wants more, and gets no news, would keep all others from
            // running.
            thread::yield_now();
        }
    }

    /// Takes pages from the VM whenever there is nothing left to grant, until the host is closed.
    /// What cannot be had that way comes from elsewhere.
    pub(super) fn page_out(&self, pmap: &Pmap) {
        while let Some(wanted) = self.next_shortage() {
            let out = pmap.page_out(wanted);
            let mut desk = lock(&self.desk);
            desk.short = false;
            if out.stuck {
                desk.budget += wanted;
            }
            drop(desk);
            self.news.notify_all();
        }
    }

    /// The VM has paid for frames with pages of its grant: `made` frames were made, and `unmade`
    /// were not.
    pub(super) fn paid(&self, made: Pages, unmade: Pages) {
        let mut desk = lock(&self.desk);
        desk.ledger -= made;
        desk.budget -= made;
        desk.owed += unmade;
        drop(desk);
        self.news.notify_all();
    }

    /// Takes note that a frame was freed.
    pub(super) fn regain(&self) {
        lock(&self.desk).budget += Pages(1);
    }

    /// Checks that the VM's grant is at most what was granted. It may be less by what the VM has
    /// paid for frames that are not counted yet.
    fn agrees(&self, pmap: &Pmap) {
        // In this order: the VM gives first, and is counted afterwards.
        let ledger = lock(&self.desk).ledger;
        let grant = pmap.stats().grant;
        assert!(grant <= ledger, "{grant:?} are taken for granted, and {ledger:?} were");
    }

    /// The same when nothing is under way any more.
    pub(super) fn agrees_at_last(&self, pmap: &Pmap) {
        let desk = lock(&self.desk);
        assert_eq!(pmap.stats().grant + desk.owed, desk.ledger, "what is taken for granted, and what was");
    }

    /// Ends [`Host::grant`] and [`Host::page_out`].
    pub(super) fn close(&self) {
        lock(&self.desk).closed = true;
        self.news.notify_all();
    }

    /// Waits until something is wanted or owed; `None` at the end.
    fn next_wish(&self) -> Option<Wish> {
        let idle = |desk: &mut Desk| {
            (desk.wanted == Pages::ZERO || desk.short) && desk.owed == Pages::ZERO && !desk.closed
        };
        let mut desk = self.news.wait_while(lock(&self.desk), idle).unwrap_or_else(PoisonError::into_inner);
        let (wanted, left) = (desk.wanted, desk.budget - desk.ledger);
        (!desk.closed).then(|| Wish { wanted, left, owed: std::mem::take(&mut desk.owed) })
    }

    fn next_shortage(&self) -> Option<Pages> {
        let idle = |desk: &mut Desk| !desk.short && !desk.closed;
        let desk = self.news.wait_while(lock(&self.desk), idle).unwrap_or_else(PoisonError::into_inner);
        (!desk.closed).then_some(desk.wanted)
    }
}
