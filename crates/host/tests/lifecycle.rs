//! VMs come and go, and so does the daemon: the account always adds up.

mod host;

use host::{Host, answered, error_of, signal, wait_until};
use plimsoll_protocol::api::Event;
use plimsoll_protocol::control::ExitReason;
use plimsoll_protocol::explain::{HostExplanation, VmExplanation};
use plimsoll_protocol::history::{CSV_HEADER, History};
use plimsoll_protocol::status::{DomainStatus, Exit, PoolStatus, Power, VmStatus};
use plimsoll_units::Bytes;
use serde_json::{Value, json};

#[test]
fn a_killed_vmm_gives_its_memory_back_and_hurts_nobody() {
    let host = Host::new(512, "");
    let (a, b) = (host.run("a", "64MiB"), host.run("b", "64MiB"));
    assert_eq!((a.power, b.power), (Power::On, Power::On));
    let before = host.status();
    assert_eq!(before.granted, a.grant + b.grant);
    signal(a.pid.unwrap());
    let gone = wait_until("the VM is off", || Some(host.vm("a")).filter(|vm| vm.power == Power::Off));
    assert!(matches!(&gone.exit, Some(Exit::Vanished(how)) if how.contains("SIGKILL")), "{gone:?}");
    let after = host.status();
    assert_eq!((after.granted, after.overhead), (b.grant, b.overhead));
    assert_eq!(host.vm("b").pid, b.pid);
    assert!(!host.path("run/vms/a").exists());
    // Its name and definition are there, and it can run again.
    let (status, body) = host.ask("POST", "/v1/vms/a/start", "");
    assert_eq!(status, 200, "{body}");
    assert!(host.refused(409, "POST", "/v1/vms/a/start", "").contains("is on"));
}

#[test]
fn a_log_that_cannot_be_written_ends_no_daemon() {
    let (reader, closed_pipe) = std::io::pipe().unwrap();
    drop(reader);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut host = Host::new(512, "");
    for (name, log) in [("a", full.into()), ("b", closed_pipe.into())] {
        host.kill_daemon();
        host.start_with_log(log);
        assert_eq!(host.run(name, "64MiB").power, Power::On);
        assert_eq!(host.ask("POST", &format!("/v1/vms/{name}/stop"), "").0, 200);
        wait_until("it is off", || Some(host.vm(name)).filter(|vm| vm.power == Power::Off));
    }
}

#[test]
fn a_daemon_outlives_the_end_of_its_terminal_and_tells() {
    let host = Host::new(512, "");
    host.hang_up();
    wait_until("it tells", || host.log().contains("read again; nothing has changed").then_some(()));
    assert_eq!(host.run("a", "64MiB").power, Power::On);
}

#[test]
fn the_kernel_ends_a_vmm_before_the_daemon() {
    let host = Host::new(512, "");
    let score = |pid: u32| -> i32 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        text.trim().parse().unwrap()
    };
    let vm = host.run("a", "64MiB");
    let (daemon, vmm) = (score(host.daemon_pid()), score(vm.pid.unwrap()));
    // A daemon that may not lower it logs a line.
    assert!(daemon < vmm || host.log().contains("may end plimsolld before its VMs"), "{daemon} {vmm}");
    assert!(vmm >= 0, "{vmm}");
}

#[test]
fn a_vmm_logs_what_the_daemon_is_told_to() {
    let host = Host::new(512, "");
    host.run("a", "64MiB");
    let log = std::fs::read_to_string(host.path("state/logs/a.vmm")).unwrap();
    assert!(log.lines().any(|line| line == "logs debug"), "{log}");
}

#[test]
fn a_daemon_that_comes_back_finds_its_vms_and_the_same_account() {
    let mut host = Host::new(512, "");
    host.run("greedy", "128MiB");
    host.run("b", "64MiB");
    let full = |host: &Host| Some(host.vm("greedy")).filter(|vm| vm.held == Bytes::mib(128));
    let greedy = wait_until("it holds all it wants", || full(&host));
    let before = host.status();
    host.kill_daemon();
    let b = std::fs::read_to_string(host.path("run/vms/b/run.json")).unwrap();
    host.start();
    let vms: Vec<VmStatus> = host.get("/v1/vms");
    assert_eq!(vms.iter().map(|vm| vm.name.to_string()).collect::<Vec<_>>(), ["b", "greedy"]);
    assert!(vms.iter().all(|vm| vm.power == Power::On), "{vms:?}");
    let after = host.status();
    assert_eq!(
        (after.granted, after.overhead, after.budget),
        (before.granted, before.overhead, before.budget)
    );
    assert_eq!((host.vm("greedy").pid, host.vm("greedy").grant), (greedy.pid, greedy.grant));
    let kernel = wait_until("the kernel was asked", || Some(host.vm("greedy").kernel).filter(|k| k.0 > 0));
    assert_eq!(kernel, Bytes::mib(128));
    // It still answers to its new daemon.
    assert_eq!(host.ask("POST", "/v1/vms/b/stop", "").0, 200);
    let off = wait_until("b is off", || Some(host.vm("b")).filter(|vm| vm.power == Power::Off));
    assert_eq!(off.exit, Some(Exit::Told(ExitReason::Shutdown)));
    assert!(b.contains("\"pid\""));
}

#[test]
fn events_outlive_the_daemon_and_tell_what_is_new() {
    let mut host = Host::new(512, "");
    host.run("a", "64MiB");
    let before = host.events();
    let file = host.path("state/events.jsonl");
    let last = before.last().unwrap().id;
    wait_until("they are on disk", || {
        std::fs::read_to_string(&file).unwrap().contains(&format!("{{\"id\":{last},")).then_some(())
    });
    host.kill_daemon();
    host.start();
    signal(host.vm("a").pid.unwrap());
    wait_until("its end is told", || {
        host.events().iter().any(|e| e.id > last && e.text.contains("ended")).then_some(())
    });
    assert_eq!(host.events()[..before.len()], before);
    let new: Vec<Event> = host.get(&format!("/v1/events?after={last}"));
    assert_eq!(new, host.events()[before.len()..]);
    assert_eq!(new[0].id, last + 1);
    assert!(host.refused(400, "GET", "/v1/events?since=1", "").contains("since"));
}

#[test]
fn explanations_and_history_are_there_for_all_and_for_one() {
    let host = Host::new(512, "");
    host.run("a", "64MiB");
    let explained: HostExplanation = host.get("/v1/explain");
    assert_eq!(explained.vms.iter().map(|share| share.vm.grant).sum::<Bytes>(), explained.host.granted);
    let one: VmExplanation = host.get("/v1/vms/a/explain");
    assert_eq!(one.decision.unwrap().entitlement, one.vm.entitlement);
    wait_until("something is recorded", || {
        let history: History = host.get("/v1/history?vm=a");
        (!history.samples.is_empty()).then_some(())
    });
    let (status, csv) = host.ask("GET", "/v1/history?format=csv", "");
    assert_eq!((status, csv.lines().next()), (200, Some(CSV_HEADER)));
    assert!(csv.lines().nth(1).is_some_and(|line| line.starts_with("0,a,")), "{csv}");
    assert!(host.refused(404, "GET", "/v1/history?vm=b", "").contains("no VM b"));
    assert!(host.refused(404, "GET", "/v1/vms/b/explain", "").contains("no VM b"));
    assert!(host.refused(400, "GET", "/v1/history?format=xml", "").contains("xml"));
    assert!(host.refused(400, "GET", "/v1/history?vm=a/b", "").contains("a/b"));
}

#[test]
fn pools_and_what_was_set_outlive_the_daemon() {
    let mut host = Host::new(512, "");
    host.run("a", "64MiB");
    host.run("b", "64MiB");
    assert_eq!(host.ask("POST", "/v1/pools", r#"{"name": "prod", "shares": "high"}"#).0, 200);
    assert_eq!(host.ask("POST", "/v1/pools", r#"{"name": "web", "parent": "prod"}"#).0, 200);
    assert_eq!(host.ask("POST", "/v1/pools", r#"{"name": "gone"}"#).0, 200);
    assert_eq!(host.ask("DELETE", "/v1/pools/gone", "").0, 204);
    let change = r#"{"pool": "web", "shares": 77, "reservation": "32MiB", "tax": 0.5}"#;
    assert_eq!(host.ask("PATCH", "/v1/vms/a", change).0, 200);
    let before: Vec<PoolStatus> = host.get("/v1/pools");
    let reserved = host.status().reserved;
    host.kill_daemon();
    host.start();
    let after: Vec<PoolStatus> = host.get("/v1/pools");
    let shape = |pools: &[PoolStatus]| {
        let of = |p: &PoolStatus| {
            (p.name.clone(), p.parent.clone(), p.shares, p.reserved, p.granted, p.vms.clone())
        };
        pools.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(shape(&after), shape(&before));
    assert_eq!(after.len(), 2);
    let a = host.vm("a");
    assert_eq!((a.pool.to_string(), a.share_count, a.reservation), ("web".into(), 77, Bytes::mib(32)));
    assert_eq!((a.tax.unwrap().rate(), a.power), (0.5, Power::On));
    assert_eq!(host.status().reserved, reserved);
}

#[test]
fn sharing_domains_are_told_with_their_vms() {
    let host = Host::new(512, "");
    host.run("a", "64MiB");
    host.run("b", "64MiB");
    for name in ["a", "b"] {
        assert_eq!(host.ask("PATCH", &format!("/v1/vms/{name}"), r#"{"sharing": "prod"}"#).0, 200);
    }
    let both = wait_until("both are in it", || {
        let domains: Vec<DomainStatus> = host.get("/v1/sharing");
        domains.into_iter().find(|domain| domain.vms.len() == 2)
    });
    assert_eq!(
        (both.name, both.vms),
        (Some("prod".parse().unwrap()), ["a", "b"].map(|vm| vm.parse().unwrap()).to_vec())
    );
    assert!(both.saved <= both.shared && !both.closed);
}

#[test]
fn a_definition_reads_back_as_it_was_given_and_changed() {
    let mut host = Host::new(512, "");
    host.run("a", "64MiB");
    let path = "/v1/vms/a/definition";
    let mut given: Value = host.get(path);
    let short = json!({"name": "a", "size": 64 << 20, "boot": {"model": true}});
    for key in ["name", "size", "boot"] {
        assert_eq!(given[key], short[key], "{given}");
    }
    assert_eq!((&given["shares"], &given["limit"]), (&Value::Null, &Value::Null), "defaults are left out");
    let change = r#"{"shares": "high", "limit": "48MiB"}"#;
    assert_eq!(host.ask("PATCH", "/v1/vms/a", change).0, 200);
    (given["shares"], given["limit"]) = (json!("high"), json!(48 << 20));
    assert_eq!(host.get::<Value>(path), given);
    host.kill_daemon();
    host.start();
    assert_eq!(host.get::<Value>(path), given);
    // What was read back can be given again.
    assert_eq!(host.ask("POST", "/v1/vms/a/kill", "").0, 200);
    let (status, body) = host.ask("POST", "/v1/vms", &given.to_string());
    assert_eq!(status, 200, "{body}");
    assert_eq!(host.get::<Value>(path), given);
    assert!(host.refused(404, "GET", "/v1/vms/b/definition", "").contains("no VM b"));
}

#[test]
fn of_two_that_edit_a_definition_the_second_is_told() {
    let host = Host::new(512, "");
    let path = "/v1/vms/a/definition";
    let definition = host::definition("a", "64MiB");
    assert_eq!(host.ask("POST", "/v1/vms?start=false", &definition.to_string()).0, 200);
    let ask = |method: &str, header: &str, body: &str| answered(host.connect(), method, path, header, body);
    let read = ask("GET", "", "");
    let tag = format!("if-match: {}\r\n", read.header("etag").unwrap());
    let changed = |vcpus: u8| {
        let mut definition: Value = serde_json::from_str(&read.body).unwrap();
        definition["vcpus"] = json!(vcpus);
        definition.to_string()
    };
    assert_eq!(ask("PUT", &tag, &changed(2)).status, 200);
    let late = ask("PUT", &tag, &changed(3));
    assert!(late.status == 412 && error_of(&late.body).contains("was changed meanwhile"), "{late:?}");
    assert_eq!(host.vm("a").vcpus, 2);
    assert_eq!(ask("PUT", "if-match: *\r\n", &changed(4)).status, 200);
    // The same definition has the same tag, also after a restart.
    assert_eq!(ask("PUT", "", &read.body).status, 200);
    assert_eq!(ask("GET", "", "").header("etag"), read.header("etag"));
}

#[test]
fn what_died_with_its_daemon_is_noticed_and_the_inventory_stays() {
    let mut host = Host::new(512, "");
    let a = host.run("a", "64MiB");
    host.run("b", "64MiB");
    assert_eq!(host.ask("POST", "/v1/vms/b/kill", "").0, 200);
    host.kill_daemon();
    signal(a.pid.unwrap());
    let pid = a.pid.unwrap();
    wait_until("the process is gone", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
    host.start();
    let (a, b) = (host.vm("a"), host.vm("b"));
    assert!(matches!(&a.exit, Some(Exit::Vanished(how)) if how.contains("daemon came back")), "{a:?}");
    assert_eq!((a.power, b.power, b.exit), (Power::Off, Power::Off, Some(Exit::KilledByOperator)));
    assert_eq!(host.status().free, Bytes::mib(512));
    assert!(!host.path("run/vms/a").exists());
}

#[test]
fn what_ended_with_the_host_is_told_so() {
    let mut host = Host::new(512, "");
    let pids = ["rebooted", "lost"].map(|name| host.run(name, "64MiB").pid.unwrap());
    host.run("off", "64MiB");
    assert_eq!(host.ask("POST", "/v1/vms/off/kill", "").0, 200);
    host.kill_daemon();
    // What a host leaves that has lost its power: the state directory.
    pids.into_iter().for_each(signal);
    for name in ["rebooted", "lost"] {
        std::fs::remove_dir_all(host.path("run/vms").join(name)).unwrap();
    }
    let path = host.path("state/vms/rebooted.json");
    let record = std::fs::read_to_string(&path).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(record.contains(boot.trim()), "{record}");
    std::fs::write(&path, record.replace(boot.trim(), "an earlier one")).unwrap();
    host.start();
    assert_eq!(host.vm("rebooted").exit, Some(Exit::EndedWithHost));
    assert!(matches!(host.vm("lost").exit, Some(Exit::Vanished(how)) if how.contains("run directory")));
    assert_eq!(host.vm("off").exit, Some(Exit::KilledByOperator));
    assert!(host.events().iter().any(|e| e.text.contains("ended with the host")));
    wait_until("it is written down", || {
        let record = std::fs::read_to_string(&path).unwrap();
        record.contains("ended-with-host").then_some(())
    });
}

#[test]
fn a_change_that_cannot_be_written_is_written_when_it_can() {
    let host = Host::new(512, "");
    host.run("a", "64MiB");
    // The daemon cannot make its files here.
    let blocked = ["vms/a.json.new", "vms/b.json.new", "vms/d.json.new", "pools.json.new"]
        .map(|file| host.path("state").join(file));
    blocked.iter().for_each(|path| std::fs::create_dir(path).unwrap());
    let (status, body) = host.ask("PATCH", "/v1/vms/a", r#"{"shares": 77}"#);
    assert!(status == 200 && body.contains("in effect but not on disk"), "{body}");
    let b = host.run("b", "64MiB");
    assert!(b.note.is_some_and(|note| note.contains("not on disk") && note.contains("b.json")));
    // A VM that is renamed is there under one of its names, whatever becomes of the daemon.
    assert_eq!(host.ask("POST", "/v1/vms?start=false", &host::definition("c", "64MiB").to_string()).0, 200);
    let (status, body) = host.ask("POST", "/v1/vms/c/rename", r#"{"name": "d"}"#);
    assert!(status == 200 && body.contains("in effect but not on disk"), "{body}");
    assert!(host.path("state/vms/c.json").exists());
    assert_eq!(host.ask("POST", "/v1/pools", r#"{"name": "prod"}"#).0, 200);
    wait_until("users are told of pools", || {
        let told = |e: &plimsoll_protocol::api::Event| e.vm.is_none() && e.text.contains("pools.json");
        host.events().iter().any(told).then_some(())
    });
    blocked.iter().for_each(|path| std::fs::remove_dir(path).unwrap());
    for name in ["a", "b", "d"] {
        host.wait_for(name, "it is written down", |vm| vm.note.is_none().then_some(()));
        assert!(
            host.events().iter().any(
                |e| e.vm.as_ref().is_some_and(|vm| vm.as_str() == name) && e.text.contains("on disk now")
            )
        );
    }
    wait_until("pools are written down", || host.path("state/pools.json").exists().then_some(()));
    assert!(host.path("state/vms/d.json").exists() && !host.path("state/vms/c.json").exists());
    let a = std::fs::read_to_string(host.path("state/vms/a.json")).unwrap();
    assert!(a.contains("77") && host.path("state/vms/b.json").exists(), "{a}");
    let left = |directory: &str| {
        let all = std::fs::read_dir(host.path(directory)).unwrap().flatten();
        all.filter(|entry| entry.path().extension().is_some_and(|e| e == "new")).count()
    };
    assert_eq!((left("state"), left("state/vms")), (0, 0));
}

#[test]
fn greedy_vms_never_exceed_the_budget_and_balloons_move_memory() {
    let host = Host::new(256, "");
    for name in ["greedy1", "greedy2", "greedy3"] {
        host.run(name, "128MiB");
    }
    let moved = |vm: &VmStatus| vm.ballooned > Bytes::ZERO;
    wait_until("balloons work", || host.get::<Vec<VmStatus>>("/v1/vms").iter().any(moved).then_some(()));
    // A fourth takes from the others.
    wait_until("there is room for a fourth", || {
        let definition = host::definition("greedy4", "64MiB").to_string();
        (host.ask("POST", "/v1/vms", &definition).0 == 200).then_some(())
    });
    wait_until("it has its share", || Some(host.vm("greedy4")).filter(|vm| vm.grant >= Bytes::mib(24)));
    let status = wait_until("the kernel was asked", || {
        Some(host.status()).filter(|status| status.peak_kernel > Bytes::mib(100))
    });
    assert!(status.peak_ledger <= status.budget && status.peak_kernel <= status.budget, "{status:?}");
}

#[test]
fn a_balloon_that_does_not_move_is_called_stuck() {
    let host = Host::new(256, "");
    host.run("lazy", "192MiB");
    wait_until("it has grown", || Some(host.vm("lazy")).filter(|vm| vm.grant >= Bytes::mib(150)));
    host.run("greedy", "192MiB");
    wait_until("it is stuck", || host.events().iter().any(|e| e.text.contains("stuck")).then_some(()));
}

#[test]
fn logs_and_changes_and_removal() {
    let host = Host::new(512, "");
    host.run("a", "128MiB");
    let (status, body) = host.ask("PATCH", "/v1/vms/a", r#"{"shares": "high", "reservation": "96MiB"}"#);
    assert_eq!(status, 200, "{body}");
    assert_eq!(host.vm("a").reservation, Bytes::mib(96));
    assert_eq!(host.ask("PATCH", "/v1/vms/a", r#"{"labels": {"tier": "web", "env": "x"}}"#).0, 200);
    assert_eq!(host.ask("PATCH", "/v1/vms/a", r#"{"labels": {"env": null}}"#).0, 200);
    assert_eq!(host.vm("a").labels.to_string(), "tier=web");
    assert_eq!(host.ask("PATCH", "/v1/vms/a", r#"{"autostart": true, "start_delay": "5s"}"#).0, 200);
    let a = host.vm("a");
    assert_eq!((a.autostart, a.start_order.0, a.start_delay.0), (true, 100, 5));
    assert!(host.refused(400, "PATCH", "/v1/vms/a", r#"{"start_order": 1000}"#).contains("start_order 1000"));
    assert!(host.events().iter().any(|e| e.text.ends_with("; labels env=x,tier=web")));
    let refused = host.refused(400, "PATCH", "/v1/vms/a", r#"{"labels": {"a b": "c"}}"#);
    assert!(refused.contains("\"a b\" is not a label's key"), "{refused}");
    std::fs::write(host.path("state/logs/a.console"), "login: ").unwrap();
    assert_eq!(host.ask("GET", "/v1/vms/a/log?source=console", ""), (200, "login: ".to_owned()));
    assert!(host.refused(400, "GET", "/v1/vms/a/log", "").contains("source="));
    assert!(host.refused(404, "GET", "/v1/vms/b/log?source=vmm", "").contains("no VM b"));
    assert!(host.refused(409, "DELETE", "/v1/vms/a", "").contains("is on"));
    assert_eq!(host.ask("POST", "/v1/vms/a/kill", "").0, 200);
    assert!(host.refused(409, "POST", "/v1/vms/a/kill", "").contains("is off"));
    assert_eq!(host.vm("a").reservation, Bytes::mib(96), "a change is kept");
    assert_eq!(host.ask("DELETE", "/v1/vms/a", "").0, 204);
    assert_eq!(std::fs::read_dir(host.path("state/vms")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(host.path("state/logs")).unwrap().count(), 0);
    assert!(host.events().iter().any(|e| e.text == "is forgotten"));
}
