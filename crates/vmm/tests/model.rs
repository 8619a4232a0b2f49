//! The whole process with a model guest: control link, grants, balloon, console, jail.

mod daemon;

use std::process::Stdio;

use daemon::{Daemon, model_config};
use plimsoll_protocol::control::{ExitReason, FdRole, FromVmm, ToVmm};
use plimsoll_units::{Bytes, Pages};
use rustix::process::{Pid, Signal, kill_process};

const SIZE: Bytes = Bytes::mib(64);

fn start(budget: Bytes) -> Daemon {
    let mut daemon = Daemon::start(model_config(SIZE), Vec::new(), budget);
    daemon.until_said(0, "toucher: ready");
    daemon
}

#[test]
fn a_model_writes_verifies_and_shuts_down() {
    let mut daemon = start(SIZE);
    daemon.until("running", |d| d.heard.iter().any(|m| matches!(m, FromVmm::Running { .. })).then_some(()));
    assert_eq!(daemon.command("touch 8388608 1"), "ok touch bytes=8388608 seed=1");
    assert_eq!(daemon.command("verify"), "ok verify bytes=8388608 pages=2048 mismatched=0");
    assert!(daemon.command("nonsense").starts_with("error nonsense"));
    assert_eq!(daemon.command("meminfo").split(' ').nth(1), Some("meminfo"));
    let facts = daemon.facts();
    assert!(facts.held >= Pages(2048) && facts.held <= facts.grant, "{facts:?}");
    assert!(facts.ram.1 >= SIZE, "{facts:?}");
    daemon.type_line("poweroff");
    let (reason, status) = daemon.end();
    assert_eq!(reason, ExitReason::Shutdown);
    assert!(status.success());
}

#[test]
fn logs_that_cannot_be_written_end_no_vm() {
    let (reader, closed_pipe) = std::io::pipe().unwrap();
    drop(reader);
    let full = || std::fs::File::options().read(true).write(true).open("/dev/full").unwrap();
    for log in [Stdio::from(full()), Stdio::from(closed_pipe)] {
        let fds = vec![(FdRole::ConsoleLog, full().into())];
        let mut daemon = Daemon::start_with_log(model_config(SIZE), fds, SIZE, Some(log));
        daemon.until_said(0, "toucher: ready");
        assert_eq!(daemon.command("touch 8388608 1"), "ok touch bytes=8388608 seed=1");
        daemon.type_line("poweroff");
        let (reason, status) = daemon.end();
        assert_eq!(reason, ExitReason::Shutdown);
        assert!(status.success());
    }
}

#[test]
fn a_crash_is_told_from_a_shutdown() {
    let mut daemon = start(SIZE);
    daemon.type_line("crash");
    let (reason, status) = daemon.end();
    assert!(matches!(reason, ExitReason::Crashed(_)), "{reason:?}");
    assert!(!status.success());
}

#[test]
fn the_power_button_ends_it() {
    let daemon = start(SIZE);
    daemon.send(&ToVmm::PowerButton);
    assert_eq!(daemon.end().0, ExitReason::Shutdown);
}

#[test]
fn a_signal_asks_the_guest_to_shut_down() {
    for signal in [Signal::TERM, Signal::INT] {
        let daemon = start(SIZE);
        kill_process(Pid::from_child(&daemon.child), signal).unwrap();
        let (reason, status) = daemon.end();
        assert_eq!(reason, ExitReason::Shutdown);
        assert!(status.success(), "{status}");
    }
}

#[test]
fn a_paused_vm_stands_still_until_it_goes_on() {
    let mut daemon = start(SIZE);
    daemon.send(&ToVmm::Pause(true));
    daemon.until("it is paused", |d| d.facts().paused.then_some(()));
    assert!(!daemon.facts().blocked, "it is not held for want of memory");
    daemon.type_line("touch 4194304 1");
    let before = daemon.facts();
    // Several reports later it still has not begun.
    (0..20).for_each(|_| assert_eq!(daemon.facts().held, before.held));
    assert!(!daemon.said.contains("ok touch"), "{}", daemon.said);
    daemon.send(&ToVmm::Pause(false));
    daemon.until_said(0, "ok touch bytes=4194304 seed=1");
    assert!(!daemon.facts().paused && daemon.facts().held > before.held);
}

#[test]
fn the_reset_button_starts_the_guest_anew() {
    let mut daemon = start(SIZE);
    daemon.command("touch 4194304 1");
    daemon.send(&ToVmm::Reset);
    daemon.until("it has rebooted", |d| (d.facts().reboots == 1).then_some(()));
    assert!(daemon.command("verify").contains("pages=0"), "nothing is left");
}

#[test]
fn freed_memory_and_its_grant_come_back() {
    let mut daemon = start(SIZE);
    daemon.command("touch 41943040 1");
    assert!(daemon.granted >= Pages::ceil(Bytes::mib(40)));
    daemon.command("free");
    daemon.until("returns", |d| (d.granted <= Pages(2 * 512)).then_some(()));
    let facts = daemon.facts();
    assert_eq!(facts.grant, daemon.granted, "both sides' accounts agree");
}

#[test]
fn the_balloon_follows_its_target_and_gives_the_grant_back() {
    let mut daemon = start(SIZE);
    daemon.command("touch 16777216 1");
    daemon.send(&ToVmm::BalloonTarget(Pages::ceil(Bytes::mib(40))));
    daemon.until("the balloon", |d| (d.facts().balloon_actual == Pages::ceil(Bytes::mib(40))).then_some(()));
    // Memory beyond what the balloon leaves free pops it.
    assert_eq!(daemon.command("touch 16777216 2"), "ok touch bytes=16777216 seed=2");
    assert!(daemon.facts().balloon_actual < Pages::ceil(Bytes::mib(40)));
    daemon.command("free 2");
    daemon.until("the balloon again", |d| {
        (d.facts().balloon_actual == Pages::ceil(Bytes::mib(40))).then_some(())
    });
    assert!(daemon.command("verify").contains("mismatched=0"));
    daemon.send(&ToVmm::BalloonTarget(Pages::ZERO));
    daemon.until("deflation", |d| (d.facts().balloon_actual == Pages::ZERO).then_some(()));
}

#[test]
fn a_guest_without_grant_waits_and_loses_nothing() {
    let mut daemon = start(Bytes::mib(16));
    let from = daemon.said.len();
    daemon.type_line("touch 33554432 1");
    daemon.until("waiting", |d| {
        let facts = d.facts();
        (facts.wanted > Pages::ZERO && facts.grant == d.budget).then_some(())
    });
    let facts = daemon.facts();
    assert!(facts.held <= facts.grant && facts.grant == daemon.granted, "{facts:?}");
    assert!(!daemon.said[from..].contains("ok touch"));
    let stalled = daemon.until("a longer stall", |d| {
        let later = d.facts();
        (later.stall_full > facts.stall_full).then_some(later)
    });
    assert!(stalled.stall_some >= stalled.stall_full, "{stalled:?}");
    daemon.budget = Pages::floor(SIZE);
    daemon.grant();
    daemon.until_said(from, "ok touch bytes=33554432");
    assert!(daemon.command("verify").contains("pages=8192 mismatched=0"));
    let ended = daemon.facts();
    assert_eq!(daemon.facts().stall_some, ended.stall_some, "nothing waits");
    assert!(daemon.peak <= Pages::floor(SIZE));
}

#[test]
fn a_guest_that_takes_everything_is_stopped_by_its_own_kernel() {
    let mut daemon = start(SIZE);
    assert!(daemon.command("touch 1048576 1").starts_with("ok touch"));
    assert!(daemon.command("alloc-forever").starts_with("ok alloc-forever bytes="));
    assert!(daemon.command("verify").contains("mismatched=0"));
    assert!(daemon.command("meminfo").ends_with("oom_kills=1"));
}

#[test]
fn a_reboot_gives_all_memory_back() {
    let mut daemon = start(SIZE);
    daemon.command("touch 16777216 1");
    let from = daemon.said.len();
    daemon.type_line("reboot");
    daemon.until("Rebooted", |d| d.heard.contains(&FromVmm::Rebooted).then_some(()));
    daemon.until_said(from, "toucher: ready");
    daemon.until("returns", |d| (d.granted <= Pages::CHUNK).then_some(()));
    let facts = daemon.facts();
    assert_eq!((facts.reboots, facts.held), (1, Pages::ZERO));
    assert_eq!(daemon.command("verify"), "ok verify bytes=0 pages=0 mismatched=0");
}

#[test]
fn a_daemon_that_comes_back_finds_every_grant() {
    let mut daemon = start(SIZE);
    daemon.command("touch 8388608 1");
    // A grant that is under way when the daemon dies is not lost.
    daemon.send(&ToVmm::Grant(Pages(1234)));
    let expected = daemon.granted + Pages(1234);
    daemon.disconnect();
    daemon.type_line("verify");
    let facts = daemon.connect();
    assert_eq!(facts.grant, expected);
    daemon.granted = facts.grant;
    daemon.heard.clear();
    daemon.until("running", |d| d.heard.iter().any(|m| matches!(m, FromVmm::Running { .. })).then_some(()));
    daemon.until_said(0, "ok verify bytes=8388608 pages=2048 mismatched=0");
    // The unused grant is returned, and the accounts agree.
    daemon.until("return", |d| (d.granted <= facts.held + Pages::CHUNK).then_some(()));
    assert_eq!(daemon.facts().grant, daemon.granted);
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_in_one_line() {
    let mut config = model_config(SIZE);
    config.vcpus = 9;
    let daemon = Daemon::start(config, Vec::new(), SIZE);
    let (reason, status) = daemon.end();
    assert_eq!(reason, ExitReason::Failed("vcpus 9: must be 1 to 8".to_owned()));
    assert_eq!(status.code(), Some(1));
}
