//! A host and its VMs for the tests of commands.

use jiff::Timestamp;
use plimsoll_protocol::status::{HostStatus, VmStatus};

use crate::local_time::{to_the_millisecond, to_the_second};

/// What is expected, with its times, which are in UTC, in the time zone of this machine.
pub fn local(expected: &str) -> String {
    let local = |word: &str| {
        let time = word.trim_end_matches([' ', '\n', ';']);
        let at: Timestamp = time.parse().ok()?;
        let local = if time.contains('.') { to_the_millisecond(at) } else { to_the_second(at) };
        Some(word.replace(time, &local))
    };
    expected
        .split_inclusive([' ', '\n', ';'])
        .map(|word| local(word).unwrap_or_else(|| word.to_owned()))
        .collect()
}

/// A VM of 256MiB that runs.
pub fn vm(name: &str) -> VmStatus {
    let mib = |n: u64| n << 20;
    let labels = serde_json::from_value(serde_json::json!({"tier": "web", "env": "prod"})).expect("labels");
    let vm: VmStatus = serde_json::from_value(serde_json::json!({
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
        "missing_jail": [], "started": "2026-01-01T00:00:00Z", "console": "/run/plimsoll/web1.console",
        "vsock": "/run/plimsoll/web1.vsock"
    }))
    .expect("a status");
    VmStatus { labels, ..vm }
}

/// A VM that has ended.
pub fn off(name: &str) -> VmStatus {
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
pub fn host() -> HostStatus {
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
    .expect("a status")
}
