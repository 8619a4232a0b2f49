use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_protocol::control::{BootConfig, ExitReason, Facts, REPORT_PERIOD, ToVmm};
use plimsoll_protocol::definition::JailPart;
use plimsoll_protocol::sharing::SharingKind;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::grants::Grants;
use super::link::{Call, Link};
use super::outbox::Outbox;
use crate::accept::PAUSE;
use crate::machine::Vm;
use crate::mailbox::{Mailbox, Posted};
use crate::sharing::{Answer, Exchange};
use crate::termination;

/// How long the last messages may take to be sent. The daemon reads at once or is absent. A longer
/// wait would only keep memory that other VMs need.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The control thread's state for the VMM's whole life.
pub(crate) struct Session {
    link: Link,
    mailbox: Arc<Mailbox>,
    exchange: Arc<Exchange>,
    /// A connection waits and was not accepted yet.
    called: bool,
    /// When to try again to accept it: there was no descriptor for it.
    call_again: Option<Instant>,
    /// A daemon was connected at the last check.
    up: bool,
    vm: Option<Vm>,
    running: Option<Vec<JailPart>>,
    grants: Grants,
    reboots: u32,
    next_report: Instant,
}

impl Session {
    /// Takes the listening control socket.
    ///
    /// # Errors
    /// `listener` is no listening socket.
    pub(crate) fn new(listener: OwnedFd, mailbox: Arc<Mailbox>) -> io::Result<Self> {
        let exchange = Arc::new(Exchange::new(Arc::clone(&mailbox)));
        Ok(Self {
            link: Link::new(listener, Outbox::new(Arc::clone(&exchange)))?,
            mailbox,
            exchange,
            called: false,
            call_again: None,
            up: false,
            vm: None,
            running: None,
            grants: Grants::default(),
            reboots: 0,
            next_report: Instant::now() + REPORT_PERIOD,
        })
    }

    /// Runs until the VM ends.
    ///
    /// # Errors
    /// The thread cannot wait for its descriptors any more.
    pub(crate) fn run(mut self) -> io::Result<ExitCode> {
        loop {
            self.wait()?;
            self.talk();
            if termination::take() {
                self.terminate();
            }
            let mail = self.mailbox.take();
            if let Some(reason) = self.deliver(mail) {
                return Ok(self.end(reason));
            }
            self.report_in_time();
            self.link.flush();
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        let (link, flags) = self.link.interest();
        let mut fds = [PollFd::new(&*self.mailbox, PollFlags::IN), PollFd::from_borrowed_fd(link, flags)];
        // A waiting connection is already known, so poll only the mailbox: it wakes this thread
        // once the connection may be accepted.
        let fds = if self.called { &mut fds[..1] } else { &mut fds[..] };
        // Without a daemon no report is due, but a paused VM is looked after.
        let paused = self.vm.as_ref().is_some_and(|vm| vm.brake.is_paused());
        let report = (self.link.is_up() || paused).then_some(self.next_report);
        let timeout = [report, self.call_again].into_iter().flatten().min().map(timespec);
        match rustix::event::poll(fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        self.called |= ready && self.link.is_idle();
        Ok(())
    }

    /// Accepts a waiting connection, once no thread can change what the first messages say.
    fn answer_call(&mut self) {
        if self.call_again.is_some_and(|then| then > Instant::now()) {
            return;
        }
        self.call_again = None;
        if !self.called || !self.exchange.suspend() {
            return;
        }
        let facts = facts(self.vm.as_ref(), self.reboots);
        let call = self.link.accept(facts, self.running.as_deref());
        self.called = call == Call::Waits;
        self.call_again = self.called.then(|| Instant::now() + PAUSE);
        if call == Call::Taken {
            self.next_report = Instant::now() + REPORT_PERIOD;
            self.up = true;
            self.exchange.connected();
            if let Some(vm) = &self.vm {
                if let Some(held) = vm.scanner.held_references() {
                    self.exchange.announce(held);
                }
                self.grants.connected(&vm.pmap, &mut self.link.outbox);
            }
        }
        self.exchange.resume();
    }

    /// Reads and obeys the daemon.
    fn talk(&mut self) {
        self.answer_call();
        while let Some((message, fds)) = self.link.receive() {
            self.obey(message, fds);
        }
        if std::mem::replace(&mut self.up, self.link.is_up()) && !self.up {
            self.exchange.disconnected();
            self.dial(Vec::new());
            if let Some(vm) = &self.vm {
                vm.scanner.daemon_lost();
                vm.pager.daemon_lost(vm.pmap.stats().grant);
                self.grants.disconnected(&vm.pmap);
            }
        }
    }

    fn obey(&mut self, message: ToVmm, fds: Vec<OwnedFd>) {
        match (message, &self.vm) {
            (ToVmm::Boot(config), None) => self.boot(*config, fds),
            (ToVmm::Boot(_), Some(_)) => tracing::error!("the daemon sent a second Boot: ignored"),
            (ToVmm::Query, _) => self.link.outbox.report(facts(self.vm.as_ref(), self.reboots)),
            (message, None) => tracing::error!(?message, "the daemon sent a message before Boot: ignored"),
            (ToVmm::Grant(pages), Some(vm)) => {
                vm.pager.granted(pages);
                vm.scanner.granted(pages);
                self.grants.granted(pages, &vm.pmap, &mut self.link.outbox);
            }
            (ToVmm::Paging { level, block }, Some(vm)) => vm.pager.order(level, block),
            (ToVmm::BalloonTarget(pages), Some(vm)) => vm.guest.set_balloon_target(pages),
            (ToVmm::Sharing { domain, scan }, Some(vm)) => {
                vm.pager.keep_small(scan.break_large && domain != SharingKind::Off);
                vm.scanner.order(domain, scan, fds);
            }
            (ToVmm::Budget(scan), Some(vm)) => {
                vm.pager.keep_small(scan.break_large);
                vm.scanner.budget(scan);
            }
            (ToVmm::Found { id, found }, Some(_)) => self.exchange.answer(id, Answer::Found(found)),
            (ToVmm::Offered { id, frames }, Some(_)) => self.exchange.answer(id, Answer::Offered(frames)),
            (ToVmm::Share { domain, pages }, Some(vm)) => vm.scanner.named(domain, pages),
            (ToVmm::Dialed { id, connected }, Some(vm)) => {
                vm.guest.dialed(id, fds.into_iter().next().filter(|_| connected));
            }
            (ToVmm::Device(order), Some(vm)) => vm.handles.obey(order, &self.mailbox),
            (ToVmm::PowerButton, Some(vm)) => vm.guest.press_power_button(),
            (ToVmm::Reset, Some(vm)) => vm.guest.press_reset_button(),
            (ToVmm::Pause(paused), Some(vm)) => {
                if paused {
                    vm.brake.pause();
                } else {
                    vm.brake.resume();
                }
                self.link.outbox.report(facts(self.vm.as_ref(), self.reboots));
            }
        }
    }

    fn boot(&mut self, config: BootConfig, fds: Vec<OwnedFd>) {
        match Vm::start(config, fds, &self.mailbox, &self.exchange) {
            Ok(vm) => self.vm = Some(vm),
            Err(error) => self.mailbox.exit(ExitReason::Failed(format!("{error:#}"))),
        }
    }

    /// Obeys a signal that asks the process to end.
    fn terminate(&self) {
        match &self.vm {
            Some(vm) => {
                self.mailbox.notice("a signal asks the VMM to end: the guest is asked to shut down");
                vm.guest.press_power_button();
            }
            None => self.mailbox.exit(ExitReason::Failed("a signal ended it before it had a VM".to_owned())),
        }
    }

    /// Passes on what the VM's threads posted. Returns why the VM ends, if it does.
    fn deliver(&mut self, mail: Posted) -> Option<ExitReason> {
        let outbox = &mut self.link.outbox;
        if let Some(missing) = mail.running {
            self.running = Some(missing.clone());
            outbox.running(missing);
        }
        if mail.reboots > 0 {
            self.reboots = self.reboots.saturating_add(mail.reboots);
            outbox.rebooted(mail.reboots);
        }
        self.dial(mail.dials);
        let outbox = &mut self.link.outbox;
        mail.resized.into_iter().for_each(|(disk, outcome)| outbox.resized(disk, outcome));
        mail.notices.into_iter().for_each(|text| outbox.notice(text));
        if mail.dropped > 0 {
            outbox.notice(format!("{} more notices came too fast and were dropped", mail.dropped));
        }
        if let Some(vm) = &self.vm {
            if mail.freed || mail.reboots > 0 {
                self.grants.freed(vm, &mut self.link.outbox);
            }
            let mut daemon = self.link.is_up().then_some(&mut self.link.outbox);
            if let Some(total) = mail.want {
                vm.pager.waits();
                self.grants.want(total, &vm.pmap, daemon.as_deref_mut());
            }
            self.grants.leaving(vm.scanner.leaving(), &vm.pmap, daemon);
        }
        mail.exit
    }

    /// Asks the daemon for connections, and refuses the guest those for which there is none to ask.
    fn dial(&mut self, dials: Vec<(u64, u32)>) {
        let is_up = self.link.is_up();
        let refused = self.link.outbox.dial(dials, is_up);
        if let Some(vm) = &self.vm {
            refused.into_iter().for_each(|id| vm.guest.dialed(id, None));
        }
    }

    fn report_in_time(&mut self) {
        let now = Instant::now();
        if now >= self.next_report {
            self.next_report = now + REPORT_PERIOD;
            if let Some(vm) = self.vm.as_ref().filter(|vm| vm.brake.is_paused()) {
                // A kick may have come just before a processor entered the guest.
                vm.brake.pause();
            }
            if self.link.is_up() {
                if let Some(vm) = &self.vm {
                    self.grants.tick(vm, &mut self.link.outbox);
                }
                self.link.outbox.report(facts(self.vm.as_ref(), self.reboots));
            }
        }
    }

    /// Saves what the guest wrote, writes its last output to its log, and sends the last messages.
    fn end(mut self, reason: ExitReason) -> ExitCode {
        let reason = match self.vm.take() {
            Some(vm) => vm.finish(reason),
            None => reason,
        };
        let code = match &reason {
            ExitReason::Shutdown => ExitCode::SUCCESS,
            ExitReason::Failed(_) => ExitCode::from(1),
            ExitReason::Crashed(_) => ExitCode::from(2),
        };
        self.link.outbox.exit(reason);
        let deadline = Instant::now() + LAST_WORDS;
        self.link.flush();
        while self.link.is_up() && self.link.outbox.has_next() && Instant::now() < deadline {
            let (link, _) = self.link.interest();
            let mut fds = [PollFd::from_borrowed_fd(link, PollFlags::OUT)];
            if rustix::event::poll(&mut fds, Some(&timespec(deadline))).is_err() {
                break;
            }
            self.link.flush();
        }
        code
    }
}

/// The time until `then`, as poll takes it.
fn timespec(then: Instant) -> Timespec {
    let left = then.saturating_duration_since(Instant::now());
    // Rounded up to a millisecond: waking too early means waking twice.
    let left = left + Duration::from_millis(1);
    Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    }
}

fn facts(vm: Option<&Vm>, reboots: u32) -> Facts {
    vm.map_or(Facts::default(), |vm| Facts { reboots, ..vm.facts() })
}
