//! The model's host: asked for grants, it gives what it likes, and takes back what it can.

use plimsoll_units::Pages;
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;

use crate::chunk::lock;
use crate::grant::GrantSource;
use crate::pmap::Pmap;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Host {
    desk: Mutex<Desk>,
    news: Condvar,
}

#[derive(Default)]
struct Desk {
    wanted: Pages,
    closed: bool,
}

impl GrantSource for Host {
    fn want(&self, total: Pages) {
        lock(&self.desk).wanted = total;
        self.news.notify_all();
    }
}

impl Host {
    /// Grants until the host is closed.
    pub(super) fn grant(&self, pmap: &Pmap) {
        let mut ledger = pmap.stats().grant;
        while let Some(wanted) = self.next_wish() {
            let answer = match thread_rng().gen_range(0..4) {
                0 => Pages::ZERO,
                1 => Pages(thread_rng().gen_range(1..=wanted.0)),
                _ => wanted,
            };
            pmap.add_grant(answer);
            ledger += answer;
            if thread_rng().gen_bool(0.25) {
                ledger -= pmap.return_grant(Pages(thread_rng().gen_range(0..2)));
            }
            assert_eq!(pmap.stats().grant, ledger, "what was granted, and what the VM takes for granted");
            // Who wants more and is not told of anything new would else keep everybody from running.
            thread::yield_now();
        }
    }

    /// Ends [`Host::grant`].
    pub(super) fn close(&self) {
        lock(&self.desk).closed = true;
        self.news.notify_all();
    }

    /// Waits until something is wanted; `None` at the end.
    fn next_wish(&self) -> Option<Pages> {
        let idle = |desk: &mut Desk| desk.wanted == Pages::ZERO && !desk.closed;
        let desk = self.news.wait_while(lock(&self.desk), idle).expect("nobody panics at the desk");
        (!desk.closed).then_some(desk.wanted)
    }
}
