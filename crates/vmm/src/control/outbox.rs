use std::collections::VecDeque;

use plimsoll_protocol::control::{ExitReason, Facts, FromVmm, VERSION};
use plimsoll_protocol::definition::JailPart;
use plimsoll_units::Pages;

/// Notices kept for a daemon that does not read or is away; the oldest go first.
const MAX_NOTICES: usize = 64;

/// What is to be sent, until the socket takes it. It is a state and not a queue, so it does not grow while the daemon is
/// away: totals replace each other, differences add up.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    hello: Option<Facts>,
    running: Option<Vec<JailPart>>,
    returned: Pages,
    want: Option<Pages>,
    rebooted: u32,
    notices: VecDeque<String>,
    report: Option<Facts>,
    exit: Option<ExitReason>,
}

impl Outbox {
    /// A connection begins with these facts. What earlier connections left unsaid is in them, except notices.
    pub(crate) fn hello(&mut self, facts: Facts, running: Option<Vec<JailPart>>) {
        let notices = std::mem::take(&mut self.notices);
        let exit = self.exit.take();
        *self = Self { hello: Some(facts), running, notices, exit, ..Self::default() };
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

    /// The message that is to be sent next. What says that memory is free comes before what asks for some, and the end
    /// comes last.
    pub(crate) fn next(&self) -> Option<FromVmm> {
        if let Some(facts) = self.hello {
            return Some(FromVmm::Hello { version: VERSION, facts });
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
        let notice = || self.notices.front().cloned().map(FromVmm::Notice);
        let report = || self.report.map(FromVmm::Report);
        let exit = || self.exit.clone().map(FromVmm::Exit);
        want.or_else(notice).or_else(report).or_else(exit)
    }

    /// [`Outbox::next`]'s message has been sent.
    pub(crate) fn sent(&mut self, message: &FromVmm) {
        match message {
            FromVmm::Hello { .. } => self.hello = None,
            FromVmm::Running { .. } => self.running = None,
            FromVmm::Rebooted => self.rebooted -= 1,
            FromVmm::Return(pages) => self.returned = self.returned.saturating_sub(*pages),
            FromVmm::Want(_) => self.want = None,
            FromVmm::Notice(_) => drop(self.notices.pop_front()),
            FromVmm::Report(_) => self.report = None,
            FromVmm::Exit(_) => self.exit = None,
            FromVmm::LookUp { .. }
            | FromVmm::Offer { .. }
            | FromVmm::GiveBack { .. }
            | FromVmm::Pool(_)
            | FromVmm::Holds { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(outbox: &mut Outbox) -> Vec<FromVmm> {
        std::iter::from_fn(|| {
            let message = outbox.next()?;
            outbox.sent(&message);
            Some(message)
        })
        .collect()
    }

    #[test]
    fn returns_add_up_and_wants_replace_each_other() {
        let mut outbox = Outbox::default();
        outbox.want(Pages(5));
        outbox.returned(Pages(3));
        outbox.returned(Pages(4));
        outbox.want(Pages(6));
        assert_eq!(drain(&mut outbox), [FromVmm::Return(Pages(7)), FromVmm::Want(Pages(6))]);
    }

    #[test]
    fn a_new_connection_begins_with_hello_and_repeats_no_difference() {
        let mut outbox = Outbox::default();
        outbox.returned(Pages(3));
        outbox.rebooted(1);
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
    fn an_absent_daemon_costs_no_memory() {
        let mut outbox = Outbox::default();
        for n in 0..100_000 {
            outbox.notice(n.to_string());
            outbox.report(Facts::default());
            outbox.want(Pages(n));
        }
        assert_eq!(drain(&mut outbox).len(), MAX_NOTICES + 2);
    }
}
