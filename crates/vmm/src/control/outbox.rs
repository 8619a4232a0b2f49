use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use plimsoll_protocol::control::{ExitReason, Facts, FromVmm, VERSION};
use plimsoll_protocol::definition::{JailPart, MAX_CONNECTIONS};
use plimsoll_units::{Bytes, Pages};

use crate::sharing::Exchange;

/// Most notices kept for a daemon that does not read or is absent; the oldest are dropped first.
const MAX_NOTICES: usize = 64;
/// Most answers about disks that grow that are kept for a daemon that does not read: one for each
/// disk.
const MAX_ANSWERS: usize = 32;

/// Most questions for connections that are kept: those of all connections that a VM may have.
const MAX_DIALS: usize = MAX_CONNECTIONS as usize;

/// Holds what is to be sent until the socket takes it. It is a state and not a queue, so it does
/// not grow while the daemon is absent: totals replace each other, differences add up. Messages
/// about frames are in the [`Exchange`].
pub(crate) struct Outbox {
    exchange: Arc<Exchange>,
    hello: Option<Facts>,
    running: Option<Vec<JailPart>>,
    returned: Pages,
    want: Option<Pages>,
    rebooted: u32,
    dials: VecDeque<(u64, u32)>,
    /// Answers to the daemon that is connected: it asks about one disk at a time.
    resized: VecDeque<(u8, Result<Bytes, String>)>,
    notices: VecDeque<String>,
    report: Option<Facts>,
    exit: Option<ExitReason>,
}

impl Outbox {
    pub(crate) fn new(exchange: Arc<Exchange>) -> Self {
        Self {
            exchange,
            hello: None,
            running: None,
            returned: Pages::ZERO,
            want: None,
            rebooted: 0,
            dials: VecDeque::new(),
            resized: VecDeque::new(),
            notices: VecDeque::new(),
            report: None,
            exit: None,
        }
    }

    /// Begins a connection with `facts`. They include what earlier connections left unsent, except
    /// notices and the end.
    pub(crate) fn hello(&mut self, facts: Facts, running: Option<Vec<JailPart>>) {
        let notices = std::mem::take(&mut self.notices);
        let (hello, exit) = (Some(facts), self.exit.take());
        *self = Self { hello, running, notices, exit, ..Self::new(Arc::clone(&self.exchange)) };
    }

    pub(crate) fn running(&mut self, missing: Vec<JailPart>) {
        self.running = Some(missing);
    }

    pub(crate) fn returned(&mut self, pages: Pages) {
        self.returned += pages;
    }

    pub(crate) fn want(&mut self, total: Pages) {
        self.want = Some(total);
    }

    pub(crate) fn rebooted(&mut self, times: u32) {
        self.rebooted = self.rebooted.saturating_add(times);
    }

    /// Asks for connections to ports of the host; `is_up`: there is a daemon to ask. Returns the
    /// numbers of the questions that nobody will answer.
    pub(crate) fn dial(&mut self, dials: Vec<(u64, u32)>, is_up: bool) -> Vec<u64> {
        self.dials.extend(dials);
        let most = if is_up { MAX_DIALS } else { 0 };
        let refused = self.dials.len().saturating_sub(most);
        self.dials.drain(..refused).map(|(id, _)| id).collect()
    }

    pub(crate) fn resized(&mut self, disk: u8, outcome: Result<Bytes, String>) {
        if self.resized.len() == MAX_ANSWERS {
            self.resized.pop_front();
        }
        self.resized.push_back((disk, outcome));
    }

    pub(crate) fn notice(&mut self, text: String) {
        if self.notices.len() == MAX_NOTICES {
            self.notices.pop_front();
        }
        self.notices.push_back(text);
    }

    pub(crate) fn report(&mut self, facts: Facts) {
        self.report = Some(facts);
    }

    pub(crate) fn exit(&mut self, reason: ExitReason) {
        self.exit = Some(reason);
    }

    /// Whether there is a message to be sent.
    pub(crate) fn has_next(&self) -> bool {
        self.hello.is_some()
            || self.running.is_some()
            || self.rebooted > 0
            || self.returned > Pages::ZERO
            || self.want.is_some()
            || !self.dials.is_empty()
            || !self.resized.is_empty()
            || !self.notices.is_empty()
            || self.report.is_some()
            || self.exit.is_some()
            || self.exchange.has_next()
    }

    /// The message that is to be sent next. First comes what a new daemon must know. Returns of
    /// memory come before requests for it, and the end comes last, without further messages about
    /// frames.
    pub(crate) fn next(&self) -> Option<FromVmm> {
        if let Some(facts) = self.hello {
            return Some(FromVmm::Hello { version: VERSION, facts });
        }
        if self.exchange.is_announcing() {
            return self.exchange.next();
        }
        if let Some(missing_jail) = self.running.clone() {
            return Some(FromVmm::Running { missing_jail });
        }
        if self.rebooted > 0 {
            return Some(FromVmm::Rebooted);
        }
        if self.returned > Pages::ZERO {
            return Some(FromVmm::Return(self.returned));
        }
        let want = self.want.map(FromVmm::Want);
        let dial = || self.dials.front().map(|(id, port)| FromVmm::Dial { id: *id, port: *port });
        let resized = || {
            let (disk, outcome) = self.resized.front().cloned()?;
            Some(FromVmm::Resized { disk, outcome })
        };
        let notice = || self.notices.front().cloned().map(FromVmm::Notice);
        let report = || self.report.map(FromVmm::Report);
        let exit = || self.exit.clone().map(FromVmm::Exit);
        let frames = || self.exchange.next().filter(|_| self.exit.is_none());
        want.or_else(frames).or_else(dial).or_else(resized).or_else(notice).or_else(report).or_else(exit)
    }

    /// The descriptor that goes with a message, if one does.
    pub(crate) fn descriptor(&self, message: &FromVmm) -> Option<Arc<OwnedFd>> {
        if let FromVmm::Pool(_) = message { self.exchange.pool() } else { None }
    }

    /// Takes note that [`Outbox::next`]'s message has been sent.
    pub(crate) fn sent(&mut self, message: &FromVmm) {
        match message {
            FromVmm::Hello { .. } => self.hello = None,
            FromVmm::Running { .. } => self.running = None,
            FromVmm::Rebooted => self.rebooted -= 1,
            FromVmm::Return(pages) => self.returned = self.returned.saturating_sub(*pages),
            FromVmm::Want(_) => self.want = None,
            FromVmm::Dial { .. } => drop(self.dials.pop_front()),
            FromVmm::Resized { .. } => drop(self.resized.pop_front()),
            FromVmm::Notice(_) => drop(self.notices.pop_front()),
            FromVmm::Report(_) => self.report = None,
            FromVmm::Exit(_) => self.exit = None,
            FromVmm::Pool(_)
            | FromVmm::Holds { .. }
            | FromVmm::GiveBack { .. }
            | FromVmm::LookUp { .. }
            | FromVmm::Offer { .. } => self.exchange.sent(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::Mailbox;

    fn outbox() -> Outbox {
        Outbox::new(Arc::new(Exchange::new(Arc::new(Mailbox::new().unwrap()))))
    }

    fn drain(outbox: &mut Outbox) -> Vec<FromVmm> {
        std::iter::from_fn(|| {
            assert_eq!(outbox.has_next(), outbox.next().is_some());
            let message = outbox.next()?;
            outbox.sent(&message);
            Some(message)
        })
        .collect()
    }

    #[test]
    fn returns_add_up_and_wants_replace_each_other() {
        let mut outbox = outbox();
        outbox.want(Pages(5));
        outbox.returned(Pages(3));
        outbox.returned(Pages(4));
        outbox.want(Pages(6));
        assert_eq!(drain(&mut outbox), [FromVmm::Return(Pages(7)), FromVmm::Want(Pages(6))]);
    }

    #[test]
    fn a_new_connection_begins_with_hello_and_repeats_no_difference() {
        let mut outbox = outbox();
        outbox.returned(Pages(3));
        outbox.rebooted(1);
        outbox.resized(0, Ok(Bytes(512)));
        outbox.notice("kept".to_owned());
        outbox.exit(ExitReason::Shutdown);
        let facts = Facts { grant: Pages(9), ..Facts::default() };
        outbox.hello(facts, Some(Vec::new()));
        assert_eq!(
            drain(&mut outbox),
            [
                FromVmm::Hello { version: VERSION, facts },
                FromVmm::Running { missing_jail: Vec::new() },
                FromVmm::Notice("kept".to_owned()),
                FromVmm::Exit(ExitReason::Shutdown),
            ]
        );
    }

    #[test]
    fn questions_for_connections_are_refused_without_a_daemon_and_not_asked_of_the_next() {
        let mut outbox = outbox();
        assert!(outbox.dial(vec![(1, 5), (2, 5)], true).is_empty());
        let asked = outbox.next().unwrap();
        assert_eq!(asked, FromVmm::Dial { id: 1, port: 5 });
        outbox.sent(&asked);
        // It has gone: what it was not asked is refused, and so is what comes now.
        assert_eq!(outbox.dial(Vec::new(), false), [2]);
        assert_eq!(outbox.dial(vec![(3, 5)], false), [3]);
        outbox.hello(Facts::default(), None);
        assert_eq!(drain(&mut outbox).len(), 1, "the greeting");
        let most = u64::try_from(MAX_DIALS).unwrap();
        assert_eq!(outbox.dial((0..most + 2).map(|id| (id, 5)).collect(), true), [0, 1]);
        assert_eq!(drain(&mut outbox).len(), MAX_DIALS);
    }

    #[test]
    fn an_absent_daemon_costs_no_memory() {
        let mut outbox = outbox();
        for n in 0..100_000 {
            outbox.notice(n.to_string());
            outbox.report(Facts::default());
            outbox.want(Pages(n));
            assert_eq!(outbox.dial(vec![(n, 5)], false), [n]);
            outbox.resized(0, Err("too long".to_owned()));
        }
        assert_eq!(drain(&mut outbox).len(), MAX_NOTICES + MAX_ANSWERS + 2);
    }
}
