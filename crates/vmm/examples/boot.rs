//! Boots one guest without a daemon, for work on the VMM: it plays the daemon, grants what
//! is asked, prints the console, types the lines that it is given (each after the last one's
//! answer) and prints how the guest ended.
//!
//! ```text
//! boot KERNEL INITRD SIZE_MIB BUDGET_MIB VCPUS CMDLINE [DISK=PATH ...] [LINE ...]
//! ```
//!
//! `plimsoll-vmm` is taken from the directory of this program, `/dev/kvm` from the host, the time
//! limit in seconds from the environment (`BOOT_LIMIT`, 120).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for developers"
)]

#[path = "../tests/daemon/mod.rs"]
mod daemon;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use plimsoll_protocol::control::{DiskConfig, FdRole, FromVmm, GuestKind, RateLimit, ToVmm};
use plimsoll_protocol::definition::ImageFormat;
use plimsoll_units::{Bytes, Pages};

use daemon::{Daemon, model_config};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut config = model_config(Bytes::mib(args[2].parse().unwrap()));
    config.guest = GuestKind::Kernel;
    config.vcpus = args[4].parse().unwrap();
    config.cmdline.clone_from(&args[5]);
    let open = |path: &str, write| -> OwnedFd {
        File::options().read(true).write(write).open(path).unwrap_or_else(|e| panic!("{path}: {e}")).into()
    };
    let mut fds = vec![(FdRole::Kvm, open("/dev/kvm", true)), (FdRole::Kernel, open(&args[0], false))];
    if args[1] != "-" {
        fds.push((FdRole::Initrd, open(&args[1], false)));
    }
    let (disks, lines): (Vec<_>, Vec<_>) = args[6..].iter().partition(|a| a.starts_with("DISK="));
    for (index, disk) in disks.iter().enumerate() {
        let disk = disk.strip_prefix("DISK=").unwrap();
        fds.push((FdRole::Disk(u8::try_from(index).unwrap()), open(disk, true)));
        config.disks.push(DiskConfig {
            serial: format!("disk{index}"),
            read_only: false,
            format: ImageFormat::Raw,
            backing: Vec::new(),
            longest: Bytes::ZERO,
            rate: RateLimit::default(),
        });
    }
    let limit: u64 = std::env::var("BOOT_LIMIT").map_or(120, |limit| limit.parse().unwrap());
    let begin = Instant::now();
    let mut vm = Daemon::start(config, fds, Bytes::mib(args[3].parse().unwrap()));
    let mut lines = lines.into_iter();
    let mut printed = 0;
    let mut seen = 0;
    let mut answers = 0;
    while begin.elapsed() < Duration::from_secs(limit) {
        vm.step();
        print!("{}", &vm.said[printed..]);
        printed = vm.said.len();
        for message in vm.heard.drain(..) {
            match message {
                FromVmm::Report(_) | FromVmm::Want(_) | FromVmm::Return(_) => {}
                FromVmm::Exit(reason) => println!("\n[{:.1?}] {reason}", begin.elapsed()),
                other => println!("\n[{:.1?}] {other:?}", begin.elapsed()),
            }
        }
        if let Some(status) = vm.child.try_wait().unwrap() {
            println!("[{:.1?}] {status}, peak grant {}", begin.elapsed(), vm.peak.bytes());
            return;
        }
        // The next line is typed when the guest is ready or has answered.
        let now = vm.said[seen..].rfind('\n').map_or(0, |end| {
            let new = &vm.said[seen..seen + end];
            seen += end;
            new.matches("toucher: ready").count()
                + new.matches("toucher: ok").count()
                + new.matches("toucher: error").count()
        });
        answers += now;
        if answers > 0
            && let Some(line) = lines.next()
        {
            answers = 0;
            match line.split_once(' ') {
                _ if line == "BUTTON" => vm.send(&ToVmm::PowerButton),
                Some(("BALLOON", mib)) => {
                    vm.send(&ToVmm::BalloonTarget(Pages::ceil(Bytes::mib(mib.parse().unwrap()))));
                    vm.type_line("meminfo");
                }
                _ => vm.type_line(line),
            }
        }
    }
    println!("\n[{:.1?}] still there: {:?}", begin.elapsed(), vm.facts());
}
