//! Hostile VMMs beside honest ones: each costs its own VM at most.

#![allow(clippy::unwrap_used, reason = "only tests use it")]

mod host;

use std::time::{Duration, Instant};

use host::{Host, definition, wait_until};
use plimsoll_protocol::api::Event;
use plimsoll_protocol::status::{HostStatus, Power, VmStatus};
use plimsoll_units::Bytes;
use serde_json::json;

/// What each of the sharers shares with the other: see `examples/fake_vmm/sharer.rs`.
const SHARED: Bytes = Bytes(32 * 4096);
/// How long VMMs keep the daemon busy: some hundred thousand messages.
const ASSAULT: Duration = Duration::from_secs(4);
/// What the daemon may take beside its state at rest: its inbox full of the largest messages, and
/// what it remembers of a few VMs.
const MEMORY: Bytes = Bytes::mib(48);

/// Honest VMs: one that holds its memory, and two that share pages with each other and with
/// whatever joins their domain.
struct Honest {
    good: VmStatus,
    sharers: Vec<VmStatus>,
}

/// Starts a VM in the domain of the sharers.
fn share(host: &Host, name: &str) {
    let mut vm = definition(name, "64MiB");
    vm["memory"] = json!({"sharing": "prod"});
    let (status, body) = host.ask("POST", "/v1/vms", &vm.to_string());
    assert_eq!(status, 200, "{body}\n{}", host.log());
}

impl Honest {
    fn start(host: &Host) -> Self {
        host.run("good", "64MiB");
        let names = ["sharer-1", "sharer-2"];
        names.iter().for_each(|name| share(host, name));
        let held = |vm: &VmStatus| (vm.held > Bytes::ZERO).then(|| vm.clone());
        let good = host.wait_for("good", "it reports", held);
        let shares = |vm: &VmStatus| (vm.sharing.shared == SHARED).then(|| vm.clone());
        let sharers = names.iter().map(|name| host.wait_for(name, "it shares its pages", shares)).collect();
        Self { good, sharers }
    }

    /// They have all that they had, and their frames hold what they shared.
    fn are_unharmed(&self, host: &Host) {
        let good = host.vm("good");
        assert_eq!((good.pid, good.grant, good.held), (self.good.pid, self.good.grant, self.good.held));
        for before in &self.sharers {
            let vm = host.vm(before.name.as_str());
            assert_eq!((vm.power, vm.pid), (Power::On, before.pid));
            assert_eq!((vm.sharing.shared, vm.sharing.mismatched), (SHARED, 0), "{}", vm.name);
            assert!(!vm.sharing.doubted);
        }
    }
}

/// A number of the daemon's, of its `/proc/PID/status`.
fn daemon_memory(host: &Host, key: &str) -> Bytes {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.daemon_pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    Bytes(line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10)
}

fn open_files(host: &Host) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", host.daemon_pid())).unwrap().count()
}

#[test]
fn what_breaks_the_protocol_ends_its_own_vm_which_says_how() {
    let host = Host::new(1024, "");
    let honest = Honest::start(&host);
    let files = open_files(&host);
    for (name, how) in [
        ("garbage", "100 bytes that is no message"),
        ("halved", "is no message"),
        ("trailing", "is no message"),
        ("long", "is no message"),
        ("passer", "passed 4 descriptors"),
        ("flinger", "is no message"),
        ("greeter", "a second greeting"),
        ("teller", "frames in the middle of a connection"),
        ("holder", "frames in the middle of a connection"),
        ("asker", "asks of too many pages"),
        ("giver", "gives too many frames back"),
        ("offerer", "offers more pages"),
        ("returner", "broke the protocol"),
        ("escaper", "without the seccomp part of its jail"),
        ("lister", "missing parts of its jail"),
    ] {
        share(&host, name);
        let vm = host.wait_for(name, "it is ended", |vm| (vm.power == Power::Off).then(|| vm.clone()));
        let exit = vm.exit.unwrap().to_string();
        assert!(exit.contains(how), "{name}: {exit}");
        honest.are_unharmed(&host);
        host.status();
    }
    wait_until("no descriptor is left over", || (open_files(&host) <= files).then_some(()));
    only_honest_vms_are_left(&host, &honest);
}

#[test]
fn vmms_at_full_rate_cost_others_nothing_and_the_daemon_little() {
    let host = Host::logging("info", 1024, "");
    let honest = Honest::start(&host);
    let (files, memory) = (open_files(&host), daemon_memory(&host, "VmRSS:"));
    let hostile = [
        "flood-1",
        "flood-2",
        "noisy-1",
        "noisy-2",
        "returning-1",
        "returning-2",
        "storm-1",
        "storm-2",
        "storm-3",
    ];
    hostile.iter().for_each(|name| share(&host, name));
    let end = Instant::now() + ASSAULT;
    while Instant::now() < end {
        // Also looks whether the account adds up.
        host.status();
        std::thread::sleep(Duration::from_millis(50));
    }
    for name in hostile {
        let vm = host.vm(name);
        // A storm says of itself that it is paused, too.
        let runs = matches!(vm.power, Power::On | Power::Paused);
        assert!(runs, "{name} does nothing that is forbidden: {:?}", vm.exit);
        assert!(vm.grant <= vm.size, "{vm:?}");
    }
    let grown = daemon_memory(&host, "VmHWM:").saturating_sub(memory);
    assert!(grown <= MEMORY, "the daemon grew by {grown}");
    let log = Bytes(host.log().len() as u64);
    assert!(log <= Bytes::mib(1), "the daemon wrote {log} to its log");
    let runs = |event: &Event| event.text == "runs" && event.vm == Some(honest.good.name.clone());
    assert!(host.events().iter().any(runs), "others' noise has pushed out what became of an honest VM");
    honest.are_unharmed(&host);
    for name in hostile {
        assert_eq!(host.ask("POST", &format!("/v1/vms/{name}/kill"), "").0, 200);
    }
    only_honest_vms_are_left(&host, &honest);
    wait_until("no descriptor is left over", || (open_files(&host) <= files).then_some(()));
}

#[test]
fn a_vmm_that_greets_without_end_is_unreachable_and_hurts_nobody() {
    let mut host = Host::new(1024, "");
    host.run("good", "64MiB");
    share(&host, "endless");
    let told = || std::fs::read_to_string(host.path("state/logs/endless.vmm")).unwrap();
    wait_until("it is in a domain", || told().contains("told to share: Frames").then_some(()));
    host.kill_daemon();
    host.start();
    let refused = |vm: &VmStatus| vm.note.as_ref().is_some_and(|note| note.contains("names none"));
    host.wait_for("endless", "it is unreachable", |vm| refused(vm).then_some(()));
    host.wait_for("good", "it is reached", |vm| vm.note.is_none().then_some(()));
    assert_eq!(host.ask("POST", "/v1/vms/endless/kill", "").0, 200);
    host.wait_for("endless", "it is off", |vm| (vm.power == Power::Off).then_some(()));
}

/// All that hostile VMs had is free again, and the rest is where it was.
fn only_honest_vms_are_left(host: &Host, honest: &Honest) {
    let names = honest.sharers.iter().chain([&honest.good]).map(|vm| vm.name.as_str());
    let granted = names.map(|name| host.vm(name).grant).sum();
    let left = |status: &HostStatus| (status.running, status.granted, status.frames);
    wait_until("only honest VMs are left", || (left(&host.status()) == (3, granted, SHARED)).then_some(()));
    honest.are_unharmed(host);
}
