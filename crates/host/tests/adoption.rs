//! A VM that lives is never lost, whatever keeps its daemon from speaking to it.

#![allow(clippy::unwrap_used, reason = "only tests use it")]

mod host;

use host::{Host, definition, runs, send, signal, wait_until};
use plimsoll_protocol::control::ExitReason;
use plimsoll_protocol::status::{Exit, Power, VmStatus};
use plimsoll_units::Bytes;
use rustix::process::Signal;
use serde_json::{Value, json};

fn change(record: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut record: Value = serde_json::from_str(record).unwrap();
    change(&mut record);
    serde_json::to_string_pretty(&record).unwrap()
}

/// What may be wrong with a run record, and what of that the note names.
const DAMAGES: [(&str, &str); 6] = [
    ("newer", "newer plimsolld"),
    ("keys", "unknown field"),
    ("strict", "vcpus 200"),
    ("cut", "EOF"),
    ("garbled", "cannot understand"),
    ("lost", "No such file"),
];

fn damage(kind: &str, record: &str) -> Option<String> {
    match kind {
        "newer" => Some(change(record, |r| r["version"] = json!(99))),
        "keys" => Some(change(record, |r| r["definition"]["colour"] = json!("blue"))),
        "strict" => Some(change(record, |r| r["definition"]["vcpus"] = json!(200))),
        "cut" => Some(record.split_once("\"started\"").unwrap().0.to_owned()),
        "garbled" => Some("{\u{0}".to_owned()),
        _ => None,
    }
}

#[test]
fn a_run_record_that_cannot_be_read_loses_no_vm() {
    let mut host = Host::new(1024, "");
    let before: Vec<VmStatus> = DAMAGES.iter().map(|(kind, _)| host.run(kind, "64MiB")).collect();
    host.kill_daemon();
    let records: Vec<String> =
        DAMAGES.iter().map(|(kind, _)| std::fs::read_to_string(host.run_record(kind)).unwrap()).collect();
    for ((kind, _), record) in DAMAGES.iter().zip(&records) {
        match damage(kind, record) {
            Some(text) => std::fs::write(host.run_record(kind), text).unwrap(),
            None => std::fs::remove_file(host.run_record(kind)).unwrap(),
        }
    }
    host.start();
    for ((kind, why), before) in DAMAGES.iter().zip(&before) {
        let vm = host.wait_for(kind, "it is called unreachable", |vm| {
            let note = vm.note.as_deref()?;
            (note.contains("unreachable") && note.contains(why)).then(|| vm.clone())
        });
        assert_eq!((vm.power, vm.grant), (Power::On, before.grant), "{vm:?}");
        assert!(runs(before.pid.unwrap()) && host.path("run/vms").join(kind).join("control.sock").exists());
        assert!(host.events().iter().any(|e| e.vm.as_ref() == Some(&vm.name) && e.text.contains(why)));
        // Its name is its own.
        let again = definition(kind, "64MiB").to_string();
        assert!(host.refused(409, "POST", "/v1/vms", &again).contains("is on"));
        assert!(host.refused(409, "POST", &format!("/v1/vms/{kind}/stop"), "").contains("keeps trying"));
    }
    // The operator mends them while the daemon runs.
    for ((kind, _), record) in DAMAGES.iter().zip(&records).skip(1) {
        std::fs::write(host.run_record(kind), record).unwrap();
    }
    for (kind, _) in &DAMAGES[1..] {
        host.wait_for(kind, "it is reached", |vm| vm.note.is_none().then_some(()));
        assert_eq!(host.ask("POST", &format!("/v1/vms/{kind}/stop"), "").0, 200);
        let exit = host.wait_for(kind, "it is off", |vm| vm.exit.clone());
        assert_eq!(exit, Exit::Told(ExitReason::Shutdown));
    }
    // One is not mended, and killed all the same.
    assert_eq!(host.ask("POST", "/v1/vms/newer/kill", "").0, 200);
    wait_until("its process is gone", || (!runs(before[0].pid.unwrap())).then_some(()));
    host.wait_for("newer", "it is off", |vm| (vm.power == Power::Off).then_some(()));
    assert_eq!(host.status().free, Bytes::mib(1024));
    assert!(!host.path("run/vms/newer").exists());
}

#[test]
fn a_run_record_of_the_version_before_is_adopted() {
    let mut host = Host::new(512, "");
    let before = host.run("a", "64MiB");
    host.kill_daemon();
    for file in [host.run_record("a"), host.path("state/vms/a.json")] {
        let record = std::fs::read_to_string(&file).unwrap();
        let former = change(&record, |r| {
            let keys = r.as_object_mut().unwrap();
            assert_eq!(keys.remove("version"), Some(json!(2)));
            if file != host.run_record("a") {
                keys.remove("boot_id");
            }
        });
        std::fs::write(&file, former).unwrap();
    }
    host.start();
    let vm = host.wait_for("a", "it is reached", |vm| vm.note.is_none().then(|| vm.clone()));
    assert_eq!((vm.pid, vm.grant), (before.pid, before.grant));
    assert_eq!(host.ask("POST", "/v1/vms/a/stop", "").0, 200);
    host.wait_for("a", "it is off", |vm| (vm.power == Power::Off).then_some(()));
}

#[test]
fn a_vm_maps_no_frames_that_its_run_record_does_not_name() {
    let host = Host::new(512, "");
    host.run("a", "64MiB");
    let told = || {
        let log = std::fs::read_to_string(host.path("state/logs/a.vmm")).unwrap();
        log.lines()
            .filter_map(|line| line.strip_prefix("told to share: ").map(str::to_owned))
            .collect::<Vec<_>>()
    };
    wait_until("it is told of frames", || told().last().filter(|last| last.starts_with("Frames")).map(drop));
    let before = told().len();
    // The daemon cannot make its file here.
    let blocked = host.path("run/vms/a/run.json.new");
    std::fs::create_dir(&blocked).unwrap();
    assert_eq!(host.ask("PATCH", "/v1/vms/a", r#"{"sharing": "prod"}"#).0, 200);
    wait_until("it is told to share zeros", || told().last().filter(|last| *last == "Zero").map(drop));
    assert!(told()[before..].iter().all(|kind| kind == "Zero"), "{:?}", told());
    std::fs::remove_dir(&blocked).unwrap();
    assert_eq!(host.ask("PATCH", "/v1/vms/a", r#"{"sharing": "own"}"#).0, 200);
    wait_until("it is told of frames", || told().last().filter(|last| last.starts_with("Frames")).map(drop));
}

#[test]
fn a_vm_that_no_record_names_is_found_by_its_greeting_and_can_be_killed() {
    let mut host = Host::new(512, "");
    let pids = ["lost", "garbled"].map(|kind| {
        let vm = host.run(kind, "64MiB");
        (kind, vm.pid.unwrap())
    });
    host.kill_daemon();
    for (kind, _) in pids {
        let path = host.run_record(kind);
        match damage(kind, "") {
            Some(text) => std::fs::write(path, text).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
    }
    host.start();
    for (kind, pid) in pids {
        host.wait_for(kind, "its process is known", |vm| (vm.pid == Some(pid)).then_some(()));
        assert_eq!(host.vm(kind).power, Power::On);
        host.wait_for(kind, "it is charged what it holds", |vm| (vm.grant >= Bytes::mib(32)).then_some(()));
        assert_eq!(host.ask("POST", &format!("/v1/vms/{kind}/kill"), "").0, 200);
        wait_until("its process is gone", || (!runs(pid)).then_some(()));
        host.wait_for(kind, "it is off", |vm| (vm.power == Power::Off).then_some(()));
    }
    assert_eq!(host.status().free, Bytes::mib(512));
}

#[test]
fn a_vmm_that_was_never_configured_is_ended() {
    let mut host = Host::new(512, "");
    host.kill_daemon();
    // What a daemon leaves that is killed between the start of a VMM and its run record.
    let directory = host.path("run/vms/a");
    std::fs::create_dir(&directory).unwrap();
    let mut vmm = host.orphan("a", &directory.join("control.sock"));
    host.start();
    wait_until("the VMM is ended", || vmm.try_wait().unwrap());
    wait_until("nothing is left of it", || (!directory.exists()).then_some(()));
    host.run("b", "64MiB");
}

#[test]
fn a_vm_whose_grant_is_not_on_record_is_adopted_with_what_it_holds() {
    let mut host = Host::new(512, "");
    let before = host.run("a", "64MiB");
    host.kill_daemon();
    std::fs::remove_file(host.path("run/vms/a/grant")).unwrap();
    host.start();
    let vm = host.wait_for("a", "it is reached", |vm| vm.note.is_none().then(|| vm.clone()));
    assert_eq!((vm.pid, vm.grant), (before.pid, before.grant));
    let recorded = std::fs::read(host.path("run/vms/a/grant")).unwrap();
    assert_eq!(recorded, (vm.grant.0 / 4096).to_le_bytes());
}

#[test]
fn a_disk_that_has_become_a_pipe_holds_up_neither_its_vm_nor_the_daemon() {
    let mut host = Host::new(512, "");
    // The kernel charges the VM for a disk in memory, so that one was looked at.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = directory.path().join("d.raw");
    std::fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let mut vm = definition("a", "64MiB");
    vm["disk"] = json!([{ "path": path }]);
    let (status, body) = host.ask("POST", "/v1/vms", &vm.to_string());
    assert_eq!(status, 200, "{body}");
    let pid = host.vm("a").pid;
    host.kill_daemon();
    std::fs::remove_file(&path).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    // As a daemon of the version before wrote it.
    let record = std::fs::read_to_string(host.run_record("a")).unwrap();
    let former = change(&record, |r| drop(r.as_object_mut().unwrap().remove("beside")));
    std::fs::write(host.run_record("a"), former).unwrap();
    host.start();
    let reached = |vm: &VmStatus| vm.note.as_ref().is_none_or(|note| !note.contains("unreachable"));
    host.wait_for("a", "it is reached", |vm| reached(vm).then_some(()));
    assert_eq!(host.vm("a").pid, pid);
    assert_eq!(host.ask("POST", "/v1/vms/a/kill", "").0, 200);
}

#[test]
fn a_vm_that_the_inventory_has_lost_is_written_back() {
    let mut host = Host::new(512, "");
    for name in ["empty", "missing", "torn"] {
        host.run(name, "64MiB");
    }
    let record = |host: &Host, name: &str| {
        std::fs::read_to_string(host.path("state/vms").join(format!("{name}.json"))).unwrap_or_default()
    };
    let before = ["empty", "missing"].map(|name| record(&host, name));
    host.kill_daemon();
    std::fs::write(host.path("state/vms/empty.json"), "").unwrap();
    std::fs::remove_file(host.path("state/vms/missing.json")).unwrap();
    std::fs::write(host.path("state/vms/torn.json"), "{").unwrap();
    host.start();
    for (name, before) in ["empty", "missing"].into_iter().zip(before) {
        wait_until("its record is there again", || (record(&host, name) == before).then_some(()));
        assert_eq!(host.vm(name).note, None);
    }
    // What an operator may repair is left to the operator.
    let vm = host.vm("torn");
    assert!(vm.power == Power::On && vm.note.is_some_and(|note| note.contains("cannot be read")));
    assert!(host.refused(409, "PATCH", "/v1/vms/torn", r#"{"shares": 1}"#).contains("repair the file"));
    assert_eq!(host.ask("POST", "/v1/vms/torn/kill", "").0, 200);
    assert_eq!(record(&host, "torn"), "{");
    assert!(
        host.refused(409, "POST", "/v1/vms", &definition("torn", "64MiB").to_string()).contains("repair")
    );
    host.kill_daemon();
    host.start();
    assert!(host.vm("torn").note.is_some_and(|note| note.contains("cannot be read")));
    assert_eq!(host.ask("DELETE", "/v1/vms/torn", "").0, 204);
    assert!(!host.path("state/vms/torn.json").exists());
    host.run("torn", "64MiB");
}

#[test]
fn a_vm_that_ends_while_it_is_unreachable_is_off() {
    let mut host = Host::new(512, "");
    let pid = host.run("a", "64MiB").pid.unwrap();
    host.kill_daemon();
    let record = std::fs::read_to_string(host.run_record("a")).unwrap();
    std::fs::write(host.run_record("a"), damage("newer", &record).unwrap()).unwrap();
    host.start();
    host.wait_for("a", "it is unreachable", |vm| vm.note.is_some().then_some(()));
    signal(pid);
    let vm = host.wait_for("a", "it is off", |vm| (vm.power == Power::Off).then(|| vm.clone()));
    assert!(matches!(vm.exit, Some(Exit::Vanished(_))), "{vm:?}");
    assert_eq!(host.status().free, Bytes::mib(512));
    assert!(!host.path("run/vms/a").exists());
}

#[test]
fn vmms_that_are_late_hold_up_nobody_and_are_adopted_when_they_answer() {
    let mut host = Host::new(1024, "");
    let names = ["a", "b", "c", "d"];
    let late: Vec<VmStatus> = names.iter().map(|name| host.run(name, "64MiB")).collect();
    let prompt = host.run("prompt", "64MiB");
    let before = host.status();
    late.iter().for_each(|vm| send(vm.pid.unwrap(), Signal::STOP));
    host.kill_daemon();
    host.start();
    host.wait_for("prompt", "it is reached", |vm| vm.note.is_none().then_some(()));
    for name in names {
        let vm = host.wait_for(name, "users are told", |vm| {
            vm.note.as_ref().is_some_and(|note| note.contains("does not answer")).then(|| vm.clone())
        });
        assert_eq!(vm.power, Power::On);
    }
    assert_eq!((host.status().granted, host.vm("prompt").pid), (before.granted, prompt.pid));
    late.iter().for_each(|vm| send(vm.pid.unwrap(), Signal::CONT));
    for (name, before) in names.iter().zip(&late) {
        let vm = host.wait_for(name, "it is reached", |vm| vm.note.is_none().then(|| vm.clone()));
        assert_eq!((vm.pid, vm.grant), (before.pid, before.grant));
        assert!(
            host.events().iter().any(|e| e.vm.as_ref() == Some(&vm.name) && e.text.contains("adopted after"))
        );
    }
    // It takes part in everything again.
    assert_eq!(host.ask("PATCH", "/v1/vms/a", r#"{"limit": "32MiB"}"#).0, 200);
    host.wait_for("a", "it gives", |vm| (vm.grant <= Bytes::mib(32)).then_some(()));
    assert_eq!(host.ask("POST", "/v1/vms/b/stop", "").0, 200);
    let exit = host.wait_for("b", "it is off", |vm| vm.exit.clone());
    assert_eq!(exit, Exit::Told(ExitReason::Shutdown));
}

#[test]
fn a_vmm_that_hangs_is_named_until_it_answers() {
    let host = Host::new(512, "");
    let pid = host.run("a", "64MiB").pid.unwrap();
    send(pid, Signal::STOP);
    let silent =
        |vm: &VmStatus| vm.note.as_ref().is_some_and(|note| note.contains("VMM has not answered for"));
    host.wait_for("a", "it is named", |vm| silent(vm).then_some(()));
    send(pid, Signal::CONT);
    host.wait_for("a", "it answers", |vm| vm.note.is_none().then_some(()));
    assert!(host.events().iter().any(|e| e.text.contains("answers again after")));
    assert_eq!(host.vm("a").pid, Some(pid));
}

#[test]
fn a_daemon_with_few_descriptors_keeps_all_vms_and_says_what_it_lacks() {
    let mut host = Host::new(1024, "");
    let names: Vec<String> = (0..16).map(|i| format!("small{i}")).collect();
    let before: Vec<VmStatus> = names.iter().map(|name| host.run(name, "32MiB")).collect();
    let overhead = host.status().overhead;
    host.kill_daemon();
    host.start_with_open_files(64);
    let vms = wait_until("some are short of descriptors", || {
        let vms: Vec<VmStatus> = host.get("/v1/vms");
        let short =
            |vm: &VmStatus| vm.note.as_ref().is_some_and(|note| note.contains("too few files open (64)"));
        vms.iter().any(short).then_some(vms)
    });
    assert_eq!(vms.len(), names.len());
    assert!(
        vms.iter()
            .all(|vm| vm.power == Power::On && host.path("run/vms").join(&*vm.name.to_string()).exists())
    );
    assert_eq!(host.status().overhead, overhead);
    let refused = host.refused(422, "POST", "/v1/vms", &definition("more", "32MiB").to_string());
    assert!(refused.contains("too few files open (64)"), "{refused}");
    // VMs that do not answer can be killed.
    let unreachable = vms.iter().find(|vm| vm.note.is_some()).unwrap();
    assert_eq!(host.ask("POST", &format!("/v1/vms/{}/kill", unreachable.name), "").0, 200);
    wait_until("its process is gone", || (!runs(unreachable.pid.unwrap())).then_some(()));
    host.kill_daemon();
    host.start();
    for (name, before) in names.iter().zip(&before).filter(|(name, _)| **name != unreachable.name.to_string())
    {
        let vm = host.wait_for(name, "it is reached", |vm| vm.note.is_none().then(|| vm.clone()));
        assert_eq!((vm.pid, vm.power), (before.pid, Power::On));
    }
}

#[test]
fn a_run_record_does_not_grow_with_the_domains_that_its_vm_has_left() {
    let host = Host::new(512, "");
    host.run("a", "64MiB");
    for domain in ["red", "blue"].into_iter().cycle().take(12) {
        let change = json!({ "sharing": domain }).to_string();
        wait_until("it has left the domain before the last", || {
            (host.ask("PATCH", "/v1/vms/a", &change).0 == 200).then_some(())
        });
    }
    host.wait_for("a", "it has left its last domain", |vm| (!vm.sharing.leaving).then_some(()));
    let record = std::fs::read_to_string(host.run_record("a")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    // Nothing is left of a domain without members.
    assert!(record["former"].as_array().is_none_or(|former| former.len() <= 1), "{record}");
}
