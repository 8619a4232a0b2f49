//! One file per command: its options, its requests to the daemon, and the text of the answer.

pub(crate) mod console;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod explain;
mod guest;
pub(crate) mod history;
pub(crate) mod inspect;
mod kill;
pub(crate) mod logs;
mod paging;
pub(crate) mod plan;
pub(crate) mod pool;
pub(crate) mod ps;
mod rm;
pub(crate) mod run;
pub(crate) mod set;
pub(crate) mod share;
mod sharing;
pub(crate) mod show;
mod stall;
mod start;
pub(crate) mod stop;
pub(crate) mod top;
mod version;
mod wait;

use std::process::ExitCode;

use anyhow::Result;

use crate::args::{Args, Command};
use crate::client::Client;
use crate::output::Output;

/// What every command works with.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) output: Output,
}

/// Runs the command.
///
/// # Errors
/// What failed, on what, and what to do about it, in one line.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let address = args.address()?;
    let output = Output::new(args.json);
    let context = Context { client: Client::new(address)?, output };
    match args.command {
        Command::Run(args) => args.run(&context),
        Command::Start(vm) => start::run(&vm.name, &context),
        Command::Ps => ps::run(&context),
        Command::Show(vm) => show::run(&vm.name, &context),
        Command::Inspect(vm) => inspect::run(&vm.name, &context),
        Command::Stop(args) => args.run(&context),
        Command::Kill(vm) => kill::run(&vm.name, &context),
        Command::Rm(vm) => rm::run(&vm.name, &context),
        Command::Set(args) => args.run(&context),
        Command::Explain(args) => args.run(&context),
        Command::History(args) => args.run(&context),
        Command::Share(args) => args.run(&context),
        Command::Pool(args) => args.run(&context),
        Command::Console(args) => args.run(&context),
        Command::Logs(args) => args.run(&context),
        Command::Events(args) => args.run(&context),
        Command::Top(args) => args.run(&context),
        Command::Plan(args) => args.run(&context),
        Command::Doctor => return doctor::run(&context.output),
        Command::Version => version::run(&context),
    }
    .map(|()| ExitCode::SUCCESS)
}

#[cfg(test)]
pub(crate) mod samples {
    use plimsoll_protocol::status::{HostStatus, VmStatus};

    /// A VM of 256MiB that runs.
    pub(crate) fn vm(name: &str) -> VmStatus {
        let mib = |n: u64| n << 20;
        serde_json::from_value(serde_json::json!({
            "name": name, "power": "on", "pid": 4711, "model": false, "vcpus": 2,
            "size": mib(256), "reservation": mib(64), "limit": mib(256), "shares": "normal", "share_count": 2560,
            "grant": mib(200), "overhead": mib(8), "held": mib(180), "kernel": mib(181), "wanted": 0,
            "stall": {
                "some": {"avg10": 12.34, "avg60": 5, "avg300": 1.5, "total_ms": 83_200},
                "full": {"avg10": 10.51, "avg60": 4, "avg300": 1, "total_ms": 61_000}
            },
            "active": mib(40), "entitlement": mib(160), "target": mib(160), "ballooned": mib(56),
            "balloon_target": mib(96), "balloon": "following",
            "paging": {
                "compressed": mib(8), "store": mib(3), "swapped": mib(16), "space": mib(192), "zipped": mib(20),
                "unzipped": mib(12), "swapped_out": mib(30), "swapped_in": mib(10), "out_rate": mib(1),
                "in_rate": 512 << 10, "level": mib(170), "why": "above-target", "blocked": false, "stuck": false,
                "failed": false
            },
            "sharing": {
                "with": "prod", "shared": mib(24), "charged": mib(6), "zero": mib(12), "saved": mib(30), "scanned": mib(900),
                "merged": mib(40), "broken": mib(4), "mismatched": 0, "scan_rate": mib(5), "merge_rate": 0,
                "break_rate": 8 << 10, "cpu": 40, "budget": 200, "break_large": true, "mappings_full": false, "doubted": false
            },
            "chunks": {"empty": 10, "large": 100, "small": 18},
            "faults": 1234, "reboots": 1,
            "guest": {"total": mib(240), "free": mib(20), "available": mib(90), "cache": mib(70),
                      "major_faults": 3, "oom_kills": 0},
            "missing_jail": [], "started": "2026-01-01T00:00:00Z", "console": "/run/plimsoll/web1.console"
        }))
        .unwrap()
    }

    /// A VM that has ended.
    pub(crate) fn off(name: &str) -> VmStatus {
        use plimsoll_protocol::control::ExitReason;
        use plimsoll_protocol::stall::StallStatus;
        use plimsoll_protocol::status::{BalloonHealth, Exit, PagingStatus, Power, SharingStatus};
        use plimsoll_units::Bytes;
        VmStatus {
            power: Power::Off,
            exit: Some(Exit::Told(ExitReason::Shutdown)),
            pid: None,
            grant: Bytes::ZERO,
            overhead: Bytes::ZERO,
            held: Bytes::ZERO,
            kernel: Bytes::ZERO,
            active: Bytes::ZERO,
            entitlement: Bytes::ZERO,
            target: Bytes::ZERO,
            ballooned: Bytes::ZERO,
            balloon_target: Bytes::ZERO,
            balloon: BalloonHealth::Absent,
            stall: StallStatus::default(),
            paging: PagingStatus::default(),
            sharing: SharingStatus::default(),
            guest: None,
            started: None,
            ..vm(name)
        }
    }

    /// A host of 640MiB.
    pub(crate) fn host() -> HostStatus {
        let mib = |n: u64| n << 20;
        serde_json::from_value(serde_json::json!({
            "budget": mib(640), "granted": mib(600), "overhead": mib(16), "frames": mib(9), "shared": mib(30), "zero": mib(12), "free": mib(15), "reserved": mib(144),
            "held": mib(560), "ballooned": mib(300), "kernel": mib(561), "peak_ledger": mib(630),
            "peak_kernel": mib(580), "state": "soft", "high_threshold": mib(38),
            "stall": {
                "some": {"avg10": 6.17, "avg60": 2.5, "avg300": 0.75, "total_ms": 90_000},
                "full": {"avg10": 5.26, "avg60": 2, "avg300": 0.5, "total_ms": 70_000}
            }, "stalled": 0, "running": 2, "version": "0.1.0"
        }))
        .unwrap()
    }
}
