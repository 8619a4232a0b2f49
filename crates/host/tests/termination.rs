//! A daemon that is told to end loses no VM, whatever it was doing.

#![allow(clippy::unwrap_used, reason = "only tests use it")]

mod host;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use host::{Host, definition, wait_until};
use plimsoll_protocol::status::{Power, VmStatus};

/// Each ends the daemon at another moment of the starts.
const ROUNDS: u64 = 20;
/// Rounds after those, each with twice the time of the one before, for as long as no daemon has
/// left a VMM behind: a machine that is short of processors starts VMs in seconds.
const LATE_ROUNDS: u64 = 8;
const VMS: usize = 20;

/// Asks for the start of a VM, and does not wait for the answer.
fn begin(host: &Host, name: &str) -> UnixStream {
    let mut stream = host.connect();
    let body = definition(name, "32MiB").to_string();
    let head = format!("POST /v1/vms HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).unwrap();
    stream
}

/// The names of those of `names` for which a VMM runs.
fn running(names: &[String]) -> Vec<&String> {
    let line = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("cmdline")).ok();
    let lines: Vec<String> = std::fs::read_dir("/proc").unwrap().flatten().filter_map(line).collect();
    let runs = |name: &&String| lines.contains(&format!("plimsoll-vmm {name}\0"));
    names.iter().filter(runs).collect()
}

#[test]
fn vms_that_are_being_started_when_the_daemon_ends_are_found_again() {
    let mut host = Host::new(2048, "");
    let mut seen = 0;
    for round in 0..ROUNDS + LATE_ROUNDS {
        if round >= ROUNDS && seen > 0 {
            break;
        }
        // No other test's VMM has such a name.
        let name = |n| format!("small{}r{round}n{n}", std::process::id());
        let names: Vec<String> = (0..VMS).map(name).collect();
        let starts: Vec<UnixStream> = names.iter().map(|name| begin(&host, name)).collect();
        std::thread::sleep(Duration::from_millis((2 * round.min(ROUNDS)) << round.saturating_sub(ROUNDS)));
        assert!(host.terminate_daemon().success());
        drop(starts);
        for name in running(&names) {
            seen += 1;
            assert!(host.path("run/vms").join(name).exists(), "round {round}: {name} is lost");
        }
        host.start();
        let vms = || host.get::<Vec<VmStatus>>("/v1/vms");
        for vm in vms().iter().filter(|vm| vm.power != Power::Off) {
            // One that had not been configured may have been ended meanwhile.
            host.ask("POST", &format!("/v1/vms/{}/kill", vm.name), "");
        }
        wait_until("all are off", || vms().iter().all(|vm| vm.power == Power::Off).then_some(()));
        for vm in vms() {
            assert_eq!(host.ask("DELETE", &format!("/v1/vms/{}", vm.name), "").0, 204);
        }
    }
    assert!(seen > 0, "no daemon ended while a VMM ran");
}
