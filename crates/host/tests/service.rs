//! The daemon as a service manager has it: told of its life, reloaded, ended.

#![allow(clippy::unwrap_used, clippy::panic, reason = "only tests use it")]

mod host;

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use host::{Host, runs, wait_until};
use plimsoll_protocol::status::{HostStatus, Power};
use plimsoll_units::Bytes;
use tempfile::TempDir;

/// A service manager's end of the notifications.
struct Manager {
    directory: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { directory, socket }
    }

    /// Restarts the daemon of `host`, which tells this manager how it is from then on.
    fn restart(&self, host: &mut Host, watchdog_ms: u32) {
        host.kill_daemon();
        self.start(host, watchdog_ms);
    }

    fn start(&self, host: &mut Host, watchdog_ms: u32) {
        let socket = self.directory.path().join("notify").display().to_string();
        let watchdog = (watchdog_ms * 1000).to_string();
        host.start_with_environment(&[("NOTIFY_SOCKET", &socket), ("WATCHDOG_USEC", &watchdog)]);
    }

    /// Waits for a notification in which a line begins with `text`, and returns the whole.
    fn expect(&self, text: &str) -> String {
        loop {
            let mut buffer = [0; 4096];
            let length = self.socket.recv(&mut buffer).unwrap_or_else(|e| panic!("no {text:?} came: {e}"));
            let told = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if told.lines().any(|line| line.starts_with(text)) {
                return told;
            }
        }
    }
}

/// Replaces the daemon's configuration.
fn configure(host: &Host, from: &str, to: &str) {
    let file = host.path("plimsolld.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&file, text.replace(from, to)).unwrap();
}

#[test]
fn the_manager_is_told_when_the_api_answers_what_goes_on_and_that_the_loop_goes_round() {
    let mut host = Host::new(512, "");
    let manager = Manager::new();
    manager.restart(&mut host, 200);
    let told = manager.expect("READY=1");
    assert!(told.contains("STATUS=answers on ") && told.contains("plimsoll.sock"), "{told}");
    (0..3).for_each(|_| drop(manager.expect("WATCHDOG=1")));
    host.run("a", "64MiB");
    manager.expect("STATUS=state high, 1 of 1 VMs on");
}

#[test]
fn a_reload_changes_what_it_can_and_names_the_rest() {
    let mut host = Host::new(512, "");
    let manager = Manager::new();
    manager.restart(&mut host, 0);
    manager.expect("READY=1");
    let vm = host.run("a", "64MiB");
    configure(
        &host,
        "budget = '512MiB'",
        "budget = '256MiB'\nidle_tax = 0.5\nsample_pages = 7\nuid_base = 5000",
    );
    host.hang_up();
    assert!(manager.expect("RELOADING=1").contains("MONOTONIC_USEC="));
    let told = manager.expect("READY=1");
    let news = "in effect: budget, idle_tax; for VMs that start from now on: sample_pages; \
                not before plimsolld is restarted: uid_base";
    assert!(told.contains(news), "{told}");
    assert!(host.events().iter().any(|event| event.text.contains(news)), "{:?}", host.events());
    assert_eq!(host.status().budget, Bytes::mib(256));
    assert_eq!(host.vm("a").pid, vm.pid);
    // What is not in effect is named again.
    host.hang_up();
    let told = manager.expect("READY=1");
    assert!(told.contains("read again; not before plimsolld is restarted: uid_base"), "{told}");
}

#[test]
fn a_configuration_with_an_error_changes_nothing() {
    let mut host = Host::new(512, "");
    let manager = Manager::new();
    manager.restart(&mut host, 0);
    manager.expect("READY=1");
    for (wrong, part) in [
        ("budget = '256MiB'\nidle_tax = 2.0", "line 2: idle_tax 2: must be a number"),
        ("budget = '256MB'", "line 1: budget: \"256MB\""),
        ("budget = '256MiB'\nswap_directory = '/nowhere'", "line 2: swap_directory /nowhere: "),
        ("budget = '9999TiB'", "budget 9999TiB: the machine has"),
    ] {
        configure(&host, "budget = '512MiB'", wrong);
        host.hang_up();
        let told = manager.expect("READY=1");
        assert!(told.contains("STATUS=the configuration is not changed: "), "{told}");
        assert!(told.contains(part), "{part}: {told}");
        assert!(host.log().contains(part));
        let status: HostStatus = host.status();
        assert_eq!(status.budget, Bytes::mib(512));
        configure(&host, wrong, "budget = '512MiB'");
    }
    assert_eq!(host.run("a", "64MiB").power, Power::On);
}

#[test]
fn a_daemon_that_is_told_to_end_says_so_and_leaves_its_vms() {
    let mut host = Host::new(512, "");
    let manager = Manager::new();
    manager.restart(&mut host, 0);
    let pid = host.run("a", "64MiB").pid.unwrap();
    assert!(host.terminate_daemon().success());
    manager.expect("STOPPING=1");
    assert!(runs(pid) && !host.path("run/plimsoll.sock").exists());
    manager.start(&mut host, 0);
    wait_until("it is adopted", || Some(host.vm("a")).filter(|vm| vm.pid == Some(pid)));
}

#[test]
fn the_configuration_is_printed_as_it_is_in_effect() {
    let host = Host::new(512, "socket_group = 'root'\n");
    let output = host.command().arg("--print-config").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("budget = \"512MiB\"\n") && text.contains("idle_tax = 0.75\n"), "{text}");
    assert!(text.contains("socket_group = \"root\"\n") && text.contains("\n# tcp: "), "{text}");
}
