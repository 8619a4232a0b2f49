//! A VMM for the daemon's tests: it speaks the protocol, holds real memory, and runs nothing.
//!
//! Its log names the domain that it was told. Its further behaviour follows from its VM's name,
//! which it finds in its first argument:
//!
//! | name begins with | it |
//! |---|---|
//! | `greedy` | wants its whole size at once |
//! | `lazy` | wants its whole size, and its balloon never inflates |
//! | `small` | holds 1 MiB of what it is granted |
//! | `caller` | wants to reach port 7 of the host, and says hello to what answers there |
//! | `hog` | holds 64 MiB beyond what it is granted |
//! | `mute` | ends without a hello |
//! | `old` | says hello in another version |
//! | `broken` | fails instead of running |
//! | `sharer` | holds 1 MiB, shares pages, and looks after their frames (`sharer.rs`) |
//! | `real` | is the program `plimsoll-vmm-real` beside this one |
//! | `endless` | greets the second daemon without end (`attack.rs`) |
//! | `flood`, `noisy`, `returning`, `storm` | keeps the daemon busy (`attack.rs`) |
//! | `garbage` and others | breaks the protocol once its VM is up (`attack.rs`) |
//! | anything else | holds what it was first granted |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "only tests run it"
)]

mod attack;
mod inherited_fd;
mod mmap;
mod sharer;
mod storm;

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use plimsoll_protocol::control::{
    BootConfig, DeviceOrder, ExitReason, Facts, FromVmm, REPORT_PERIOD, ToVmm, VERSION,
};
use plimsoll_protocol::sharing::{DomainId, SharingKind};
use plimsoll_protocol::wire::{Wire, WireError};
use plimsoll_units::{Bytes, DigestKey, Pages};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SocketFlags;

use crate::mmap::Ram;
use crate::sharer::Sharer;
use crate::storm::Storm;

fn main() {
    let argument = std::env::args().next().unwrap();
    let name = argument.rsplit(' ').next().unwrap().to_owned();
    if let Ok(filter) = std::env::var(plimsoll_log::FILTER_VARIABLE) {
        plimsoll_log::say(&format!("logs {filter}"));
    }
    if name.starts_with("mute") {
        return;
    }
    if name.starts_with("real") {
        let program = std::env::current_exe().unwrap().with_file_name("plimsoll-vmm-real");
        panic!("{}", Command::new(program).arg0(argument).exec());
    }
    let listener = inherited_fd::control_socket();
    let mut vm = Vm {
        name,
        ram: Ram::default(),
        facts: Facts::default(),
        running: false,
        fds: Vec::new(),
        domain: None,
        sharer: Sharer::default(),
    };
    loop {
        let socket = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        vm.serve(&Wire::new(socket.unwrap()));
    }
}

struct Vm {
    name: String,
    ram: Ram,
    facts: Facts,
    running: bool,
    fds: Vec<OwnedFd>,
    /// The domain that it was told.
    domain: Option<(DomainId, DigestKey)>,
    sharer: Sharer,
}

impl Vm {
    fn is(&self, kind: &str) -> bool {
        self.name.starts_with(kind)
    }

    /// Speaks with one daemon until it is gone.
    fn serve(&mut self, wire: &Wire) {
        let version = if self.is("old") { VERSION + 1 } else { VERSION };
        say(wire, &FromVmm::Hello { version, facts: self.facts });
        if self.is("endless")
            && let Some((domain, _)) = &self.domain
        {
            return attack::greet_without_end(wire, *domain);
        }
        loop {
            let period = Timespec::try_from(REPORT_PERIOD / 10).unwrap();
            poll(&mut [PollFd::new(wire, PollFlags::IN)], Some(&period)).unwrap();
            match wire.receive::<ToVmm>() {
                Ok((ToVmm::Boot(config), fds)) => {
                    // Disks stay locked as long as they are open.
                    self.fds = fds;
                    self.boot(wire, &config);
                }
                Ok((ToVmm::Grant(pages), _)) => {
                    self.facts.grant += pages;
                    self.hold(self.facts.grant);
                    self.facts.wanted = self.facts.wanted.saturating_sub(pages);
                    if !self.is("sharer") {
                        self.give_back(wire);
                    }
                }
                Ok((ToVmm::BalloonTarget(pages), _)) => self.balloon(wire, pages),
                Ok((ToVmm::PowerButton, _)) => {
                    say(wire, &FromVmm::Exit(ExitReason::Shutdown));
                    std::process::exit(0);
                }
                Ok((message @ (ToVmm::Found { .. } | ToVmm::Offered { .. } | ToVmm::Share { .. }), _)) => {
                    if let Some(answer) = self.sharer.hear(message, &mut self.facts) {
                        say(wire, &answer);
                    }
                }
                Ok((ToVmm::Pause(paused), _)) => self.facts.paused = paused,
                Ok((ToVmm::Reset, _)) => {
                    self.facts.reboots += 1;
                    say(wire, &FromVmm::Rebooted);
                }
                Ok((ToVmm::Dialed { .. }, fds)) => {
                    for fd in &fds {
                        // The program there may have left.
                        rustix::io::write(fd, b"hello").ok();
                    }
                }
                Ok((ToVmm::Device(DeviceOrder::DiskSize { disk, size }), _)) => {
                    say(wire, &FromVmm::Resized { disk, outcome: Ok(size) });
                }
                Ok((ToVmm::Query | ToVmm::Paging { .. } | ToVmm::Budget(_) | ToVmm::Device(_), _)) => {}
                Ok((ToVmm::Sharing { domain, .. }, fds)) => {
                    eprintln!("told to share: {domain:?}");
                    if let SharingKind::Frames { domain, key, .. } = domain {
                        self.domain = Some((domain, key));
                    }
                    if self.is("sharer") {
                        self.sharer.join(domain, fds);
                    }
                }
                Err(WireError::Closed) => return,
                Err(e) if e.would_block() => {}
                Err(e) => panic!("{e}"),
            }
            if self.running {
                if let Some(question) = self.sharer.look(&mut self.facts) {
                    say(wire, &question);
                }
                say(wire, &FromVmm::Report(self.facts));
                if self.is("caller") {
                    say(wire, &FromVmm::Dial { id: 1, port: 7 });
                }
                if let Some((domain, key)) = self.domain {
                    attack::breach(&self.name, wire, domain, self.facts);
                    let storm = Storm::new(&self.name, domain, &key, self.facts);
                    attack::assault(&self.name, wire, self.facts, storm);
                }
            }
        }
    }

    fn boot(&mut self, wire: &Wire, config: &BootConfig) {
        if self.is("broken") {
            say(wire, &FromVmm::Exit(ExitReason::Failed("it is broken".to_owned())));
            std::process::exit(1);
        }
        self.ram = Ram::new(config.size);
        self.facts.ram = (self.ram.address as u64, config.size.bytes());
        self.facts.grant = config.grant;
        self.facts.balloon_driver = true;
        self.hold(config.grant);
        if self.is("hog") {
            let more = Pages::ceil(Bytes::mib(64));
            // For as long as the process runs.
            Ram::new(more).touch(Pages::ZERO, more);
        }
        self.running = true;
        say(wire, &FromVmm::Running { missing_jail: config.allow_missing.clone() });
        if self.is("greedy") || self.is("lazy") {
            self.facts.wanted = config.size.saturating_sub(config.grant);
            say(wire, &FromVmm::Want(self.facts.wanted));
        }
    }

    /// Touches memory until `pages` are resident.
    fn hold(&mut self, pages: Pages) {
        let most =
            if self.is("small") || self.is("sharer") { Pages::ceil(Bytes::mib(1)) } else { self.ram.size };
        let pages = pages.min(most.saturating_sub(self.facts.ballooned));
        self.ram.touch(self.facts.held, pages);
        self.facts.held = self.facts.held.max(pages);
    }

    fn balloon(&mut self, wire: &Wire, target: Pages) {
        self.facts.balloon_target = target;
        if self.is("lazy") {
            return;
        }
        (self.facts.ballooned, self.facts.balloon_actual) = (target, target);
        let most = self.ram.size.saturating_sub(target);
        let over = self.facts.held.saturating_sub(most);
        if over > Pages::ZERO {
            self.ram.release(most, self.facts.held);
            self.facts.held = most;
        }
        self.give_back(wire);
    }

    /// Returns the part of its grant that it does not hold.
    fn give_back(&mut self, wire: &Wire) {
        let over = self.facts.grant.saturating_sub(self.facts.held);
        if over > Pages::ZERO {
            self.facts.grant = self.facts.held;
            say(wire, &FromVmm::Return(over));
        }
    }
}

/// What the daemon does not read is of no matter here: it is sent again, or the daemon is gone.
fn say(wire: &Wire, message: &FromVmm) {
    wire.send(message, &[]).ok();
}
