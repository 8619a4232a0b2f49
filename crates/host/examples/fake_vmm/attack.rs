//! What hostile VMMs say once their VM is up.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use plimsoll_protocol::control::{Facts, FromVmm, VERSION};
use plimsoll_protocol::definition::JailPart;
use plimsoll_protocol::sharing::{DomainId, MAX_BATCH, WINDOW};
use plimsoll_protocol::wire::{MAX_MESSAGE, Wire};
use plimsoll_units::{FrameNo, PageDigest, PageNo, Pages};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::storm::Storm;

/// Most descriptors that the kernel passes with one message (`SCM_MAX_FD`).
const MOST_FDS: usize = 253;

/// Breaks the protocol, as the VM's name says, if it says so.
pub(crate) fn breach(name: &str, wire: &Wire, domain: DomainId, facts: Facts) {
    let pages = |count| (0..).map(PageNo).zip((0..count as u128).map(PageDigest)).collect::<Vec<_>>();
    let frames = |count| (0..).map(|n| (PageNo(n), FrameNo(n))).take(count).collect::<Vec<_>>();
    let message = match name {
        "garbage" => return raw(wire, &[0xff; 100], &[]),
        "halved" => {
            let whole = encoded(&FromVmm::LookUp { domain, id: 1, pages: pages(10) });
            return raw(wire, &whole[..whole.len() / 2], &[]);
        }
        "trailing" => return raw(wire, &[encoded(&FromVmm::Want(Pages(1))), vec![0]].concat(), &[]),
        "long" => return raw(wire, &[0; MAX_MESSAGE + 1], &[]),
        "passer" => return raw(wire, &encoded(&FromVmm::Report(facts)), &[wire.as_fd(); 4]),
        "flinger" => return raw(wire, &encoded(&FromVmm::Report(facts)), &[wire.as_fd(); MOST_FDS]),
        "greeter" => FromVmm::Hello { version: VERSION, facts },
        "teller" => FromVmm::Pool(domain),
        "holder" => FromVmm::Holds { pages: frames(1), last: true },
        "asker" => FromVmm::LookUp { domain, id: 1, pages: pages(MAX_BATCH + 1) },
        "giver" => FromVmm::GiveBack { domain, pages: frames(MAX_BATCH + 1), mismatched: true },
        "offerer" => FromVmm::Offer { domain, id: 1, pages: pages(WINDOW + 1) },
        "returner" => FromVmm::Return(Pages(u64::MAX)),
        "escaper" => FromVmm::Running { missing_jail: vec![JailPart::Seccomp] },
        "lister" => FromVmm::Running { missing_jail: vec![JailPart::Uid; MAX_MESSAGE - 8] },
        _ => return,
    };
    raw(wire, &encoded(&message), &[]);
}

/// Keeps the daemon busy without breaking the protocol, as the VM's name says, for as long as there
/// is a connection. Never reads. Returns at once where the name says nothing of that.
pub(crate) fn assault(name: &str, wire: &Wire, facts: Facts, mut storm: Storm) {
    let kind = name.split('-').next().unwrap_or_default();
    let mut turn = 0_u64;
    let mut message = || {
        turn += 1;
        Some(match kind {
            "flood" => FromVmm::Want(Pages(turn % 3)),
            "noisy" => match turn % 4 {
                0 => FromVmm::Rebooted,
                // The balloon's driver comes and goes. With a struct update the closure would
                // capture the array in `facts` apart, at which Rust 1.95 crashes.
                1 => {
                    let mut report = facts;
                    report.balloon_driver = turn % 8 == 1;
                    FromVmm::Report(report)
                }
                _ => FromVmm::Notice("noise".repeat(3000)),
            },
            "returning" => FromVmm::Return(Pages(0)),
            "storm" => storm.message(),
            _ => return None,
        })
    };
    while let Some(message) = message() {
        if !press(wire, &encoded(&message)) {
            return;
        }
    }
}

/// Says that frames follow, and never which, for as long as there is a connection.
pub(crate) fn greet_without_end(wire: &Wire, domain: DomainId) {
    raw(wire, &encoded(&FromVmm::Pool(domain)), &[wire.as_fd()]);
    let packet = encoded(&FromVmm::Holds { pages: Vec::new(), last: false });
    while press(wire, &packet) {}
}

/// Sends a packet as soon as the socket takes it. Returns whether there still is a connection.
fn press(wire: &Wire, packet: &[u8]) -> bool {
    while rustix::net::send(wire, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).is_err() {
        let mut fds = [PollFd::new(wire, PollFlags::OUT)];
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        poll(&mut fds, Some(&second)).unwrap();
        if fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
            return false;
        }
    }
    true
}

/// A message as the wire has it.
fn encoded(message: &FromVmm) -> Vec<u8> {
    postcard::to_stdvec(message).unwrap()
}

/// Sends a packet as it is. What the daemon does not take is of no matter.
fn raw(wire: &Wire, packet: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
    }
    rustix::net::sendmsg(wire, &[IoSlice::new(packet)], &mut ancillary, SendFlags::NOSIGNAL).ok();
}
