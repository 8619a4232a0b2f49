//! Commands for several VMs, and the exit status.

use serde_json::{Value, json};

use crate::fake::{Fake, error, plimsoll, vm};

#[test]
fn a_vm_that_fails_holds_up_no_other_and_the_first_decides_the_status() {
    let fake = Fake::new();
    fake.on("POST /v1/vms/a/start", 507, &error("not enough memory"));
    fake.on("POST /v1/vms/b/start", 200, &vm("b", "on")).on("POST /v1/vms/c/start", 404, &error("no VM c"));
    let done = fake.run(&["start", "a", "b", "c", "b"]);
    assert_eq!(done.out, "b runs (256MiB, 1 vCPU); see it with: plimsoll console b\n");
    assert_eq!((done.code, done.err.as_str()), (5, "plimsoll: not enough memory\nplimsoll: no VM c\n"));
    let starts = fake.lines().into_iter().filter(|line| line.starts_with("POST"));
    assert_eq!(starts.count(), 3, "a VM that is named twice is started once");
}

#[test]
fn facts_of_several_vms_are_objects_one_a_line() {
    let fake = Fake::new();
    fake.on("PATCH /v1/vms/a", 200, &vm("a", "on")).on("PATCH /v1/vms/b", 404, &error("no VM b"));
    let done = fake.run(&["set", "a", "b", "a", "--shares", "high", "--json"]);
    let facts: Value = serde_json::from_str(done.out.trim_end()).unwrap();
    let failure: Value = serde_json::from_str(done.err.trim_end()).unwrap();
    assert_eq!((&facts["name"], &failure["error"]), (&json!("a"), &json!("no VM b")));
    assert_eq!((done.code, done.out.lines().count()), (3, 1));
    fake.on("GET /v1/vms/a", 200, &vm("a", "on")).on("GET /v1/vms/b", 200, &vm("b", "off"));
    let shown = fake.run(&["show", "a", "b"]);
    assert_eq!((shown.code, shown.out.matches("name         ").count()), (0, 2), "{shown:?}");
}

#[test]
fn all_are_those_that_are_in_a_state_for_it() {
    let fake = Fake::new();
    fake.on("GET /v1/vms", 200, &json!([vm("a", "on"), vm("b", "off"), vm("c", "stopping")]));
    for (line, answer) in [
        ("POST /v1/vms/b/start", vm("b", "on")),
        ("POST /v1/vms/a/kill", vm("a", "off")),
        ("POST /v1/vms/c/kill", vm("c", "off")),
        ("POST /v1/vms/a/stop", vm("a", "off")),
        ("POST /v1/vms/c/stop", vm("c", "off")),
    ] {
        fake.on(line, 200, &answer);
    }
    fake.on_text("DELETE /v1/vms/b", 204, "");
    for (command, expected) in [
        ("start", &["POST /v1/vms/b/start"][..]),
        ("stop", &["POST /v1/vms/a/stop", "POST /v1/vms/c/stop"]),
        ("kill", &["POST /v1/vms/a/kill", "POST /v1/vms/c/kill"]),
        ("rm", &["DELETE /v1/vms/b"]),
    ] {
        let before = fake.lines().len();
        let done = fake.run(&[command, "--all"]);
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{command}");
        let asked: Vec<String> = fake.lines().split_off(before);
        let changes: Vec<&String> = asked.iter().filter(|line| !line.starts_with("GET")).collect();
        assert_eq!(changes, expected, "{command}");
    }
    let none = Fake::new();
    none.on("GET /v1/vms", 200, &json!([vm("b", "off")]));
    let done = none.run(&["stop", "--all"]);
    assert_eq!((done.code, done.out.as_str(), done.err.lines().count()), (0, "", 1), "{done:?}");
}

#[test]
fn all_buttons_are_pressed_before_any_vm_is_waited_for() {
    let fake = Fake::new();
    for name in ["a", "b"] {
        fake.on(&format!("POST /v1/vms/{name}/stop"), 200, &vm(name, "stopping"));
    }
    fake.on("GET /v1/vms", 200, &json!([vm("b", "off"), vm("a", "off"), vm("c", "on")]));
    let told = "a is off: the guest shut down\nb is off: the guest shut down\n";
    fake.run(&["stop", "a", "b", "--wait"]).prints(told);
    // One question for all of them.
    let order = ["POST /v1/vms/a/stop", "POST /v1/vms/b/stop", "GET /v1/vms"];
    assert_eq!(fake.lines(), order);
    fake.run(&["stop", "a", "--no-wait"]).prints("a is asked to shut down\n");
    assert_eq!(fake.lines().len(), order.len() + 1);
}

#[test]
fn what_is_missing_is_passed_over_where_it_is_asked_for() {
    let fake = Fake::new();
    for command in ["stop", "kill"] {
        fake.on(&format!("POST /v1/vms/gone/{command}"), 404, &error("there is no VM gone"));
        fake.on(&format!("POST /v1/vms/off/{command}"), 409, &error("VM off is off"));
        fake.on(&format!("POST /v1/vms/new/{command}"), 409, &error("VM new is being started"));
        fake.on("GET /v1/vms/off", 200, &vm("off", "off")).on("GET /v1/vms/new", 200, &vm("new", "starting"));
        fake.run(&[command, "gone", "off", "--ignore-missing"]).prints("");
        fake.run(&[command, "gone"]).fails(3, "there is no VM gone");
        fake.run(&[command, "off"]).fails(4, "VM off is off");
        fake.run(&[command, "new", "--ignore-missing"]).fails(4, "VM new is being started");
    }
    fake.on("DELETE /v1/vms/gone", 404, &error("there is no VM gone"));
    fake.on("DELETE /v1/vms/on", 409, &error("VM on is on"));
    fake.run(&["rm", "gone", "--ignore-missing"]).prints("");
    fake.run(&["rm", "gone"]).fails(3, "there is no VM gone");
    fake.run(&["rm", "on", "--ignore-missing"]).fails(4, "VM on is on");
}

#[test]
fn waits_end_at_what_is_waited_for_or_in_time() {
    let fake = Fake::new();
    fake.on("GET /v1/vms/a", 200, &vm("a", "on")).on("GET /v1/vms/a", 200, &vm("a", "off"));
    fake.run(&["wait", "a"]).prints("a is off: the guest shut down\n");
    fake.on("GET /v1/vms/b", 200, &vm("b", "starting")).on("GET /v1/vms/b", 200, &vm("b", "on"));
    fake.run(&["wait", "b", "--for", "on"]).prints("b is on\n");
    fake.run(&["wait", "b", "--timeout", "10ms"]).fails(1, "b is not off in time: see plimsoll show b");
    fake.on("GET /v1/vms/b", 404, &error("there is no VM b"));
    fake.run(&["wait", "b", "--for", "gone"]).prints("b is removed\n");
    fake.run(&["wait", "b"]).fails(3, "there is no VM b");
}

#[test]
fn lists_are_limited_to_vms_that_are_named() {
    let fake = Fake::new();
    fake.on("GET /v1/vms", 200, &json!([vm("a", "on"), vm("b", "off")]));
    for list in ["ps", "ls", "list"] {
        let done = fake.run(&[list, "b", "--json"]);
        let vms: Value = serde_json::from_str(&done.out).unwrap();
        assert_eq!((vms.as_array().unwrap().len(), &vms[0]["name"]), (1, &json!("b")));
    }
    fake.run(&["ps", "a", "c"]).fails(3, "there is no VM c: see plimsoll ps");
    fake.on("GET /v1/pools", 200, &json!([])).on("GET /v1/sharing", 200, &json!([]));
    for (what, name) in [("pool", "ls"), ("pool", "list"), ("share", "ls"), ("share", "list")] {
        assert_eq!(fake.run(&[what, name]).code, 0, "{what} {name}");
    }
    for words in [&["help"][..], &["help", "stop"], &["pool", "help", "ls"]] {
        let done = plimsoll(words).output().unwrap();
        assert!(done.status.success() && !done.stdout.is_empty(), "{words:?}");
    }
}

#[test]
fn every_failure_has_its_exit_status() {
    for (status, code) in [(400, 2), (401, 6), (404, 3), (409, 4), (422, 5), (500, 1), (507, 5)] {
        let fake = Fake::new();
        fake.on("GET /v1/vms/a", status, &error("no"));
        fake.run(&["show", "a"]).fails(code, "no");
    }
    let fake = Fake::new();
    for args in [&["ps", "--ca-file", "/c"][..], &["history", "--csv", "--json"], &["run", "/none.toml"]] {
        assert_eq!(fake.run(args).code, 2, "{args:?}");
    }
    fake.on("GET /v1/vms/a", 200, &vm("a", "off"));
    assert_eq!(fake.run(&["console", "a"]).code, 4);
}

#[test]
fn a_change_that_is_not_saved_is_told_with_a_status_of_its_own() {
    let fake = Fake::new();
    let header = "plimsoll-unsaved: cannot write /s/a.json: no space left";
    fake.on_with("PATCH /v1/vms/a", 200, header, &vm("a", "on").to_string());
    fake.on_with("DELETE /v1/vms/a", 204, header, "");
    let line = "plimsoll: in effect, but not saved; it is lost if plimsolld ends before it can be: \
                cannot write /s/a.json: no space left\n";
    let done = fake.run(&["set", "a", "--shares", "high"]);
    assert_eq!((done.code, done.err.as_str(), done.out.lines().count()), (7, line, 1));
    let done = fake.run(&["rm", "a"]);
    assert_eq!((done.code, done.err.as_str()), (7, line));
    assert_eq!(done.out, "a is removed; its disks stay\n");
}

#[test]
fn a_definition_is_read_from_a_pipe() {
    use std::io::Write;
    let fake = Fake::new();
    fake.on("POST /v1/vms", 200, &vm("a", "on"));
    for name in ["-", "/dev/stdin"] {
        let mut command = fake.command(&["run", name]);
        command.current_dir(fake.path("")).stdin(std::process::Stdio::piped());
        let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
        let text = "name = 'a'\nsize = '256MiB'\n[boot]\nkernel = 'vmlinuz'\n";
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{name}");
    }
    for (line, body) in fake.requests().iter().filter(|(line, _)| line.starts_with("POST")) {
        let sent: Value = serde_json::from_str(body).unwrap();
        assert_eq!(sent["boot"]["kernel"], json!(fake.path("vmlinuz")), "{line}");
    }
}

#[test]
fn labels_choose_vms() {
    let fake = Fake::new();
    let labelled = |name: &str, power: &str, labels: Value| {
        let mut vm = vm(name, power);
        vm["labels"] = labels;
        vm
    };
    let web = labelled("web", "on", json!({"tier": "web", "env": "prod"}));
    let test = labelled("test", "on", json!({"tier": "web", "env": "test"}));
    let off = labelled("off", "off", json!({"tier": "web", "env": "prod"}));
    fake.on("GET /v1/vms", 200, &json!([web, test, off, vm("db", "on")]));
    for name in ["web", "test", "off", "db"] {
        fake.on(&format!("POST /v1/vms/{name}/kill"), 200, &vm(name, "off"));
    }
    for (labels, expected) in [
        (&["--label", "tier=web"][..], &["web", "test"][..]),
        (&["--label", "tier"], &["web", "test"]),
        (&["--label", "tier=web", "--label", "env=prod"], &["web"]),
        (&["--label", "tier=none"], &[]),
    ] {
        let before = fake.lines().len();
        assert_eq!(fake.run(&[&["kill"], labels].concat()).code, 0);
        let killed: Vec<String> = fake.lines().split_off(before + 1);
        let expected: Vec<String> = expected.iter().map(|vm| format!("POST /v1/vms/{vm}/kill")).collect();
        assert_eq!(killed, expected, "{labels:?}");
    }
    let listed: Value =
        serde_json::from_str(&fake.run(&["ps", "--label", "env=prod", "--json"]).out).unwrap();
    let names: Vec<&Value> = listed.as_array().unwrap().iter().map(|vm| &vm["name"]).collect();
    assert_eq!(names, [&json!("web"), &json!("off")]);
}

fn placed(name: &str, power: &str, order: u16) -> Value {
    let mut vm = vm(name, power);
    (vm["autostart"], vm["start_order"]) = (json!(true), json!(order));
    vm
}

#[test]
fn vms_start_in_their_order_each_when_the_one_before_has_started_and_waited() {
    let fake = Fake::new();
    let mut first = placed("first", "off", 1);
    first["start_delay"] = json!(1);
    let mut unmarked = placed("unmarked", "off", 0);
    unmarked["autostart"] = json!(false);
    let all =
        [placed("last", "off", 200), unmarked, placed("broken", "off", 2), placed("up", "on", 1), first];
    fake.on("GET /v1/vms", 200, &json!(all));
    fake.on("POST /v1/vms/first/start", 200, &vm("first", "starting"));
    fake.on("GET /v1/vms/first", 200, &vm("first", "on"));
    fake.on("POST /v1/vms/broken/start", 507, &error("not enough memory"));
    fake.on("POST /v1/vms/last/start", 200, &vm("last", "on"));
    let begun = std::time::Instant::now();
    let done = fake.run(&["start", "--autostart"]);
    assert!(begun.elapsed() >= std::time::Duration::from_secs(1), "the delay of the first is kept");
    assert_eq!((done.code, done.err.as_str()), (5, "plimsoll: not enough memory\n"));
    let line = |name| format!("{name} runs (256MiB, 1 vCPU); see it with: plimsoll console {name}\n");
    assert_eq!(done.out, line("first") + &line("last"));
    let order = ["first/start", "first", "broken/start", "last/start"].map(|path| format!("/v1/vms/{path}"));
    let asked: Vec<String> =
        fake.lines()[1..].iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(asked, order);
}

#[test]
fn vms_stop_in_the_reverse_order_those_of_one_place_together() {
    let fake = Fake::new();
    let all =
        [placed("db", "on", 1), placed("web1", "on", 9), placed("web2", "on", 9), placed("off", "off", 5)];
    fake.on("GET /v1/vms", 200, &json!(all));
    fake.on("GET /v1/vms", 200, &json!([vm("db", "on"), vm("web1", "off"), vm("web2", "off")]));
    fake.on("GET /v1/vms/db", 200, &vm("db", "off"));
    for name in ["db", "web1", "web2"] {
        fake.on(&format!("POST /v1/vms/{name}/stop"), 200, &vm(name, "stopping"));
    }
    assert_eq!(fake.run(&["stop", "--all", "--wait"]).code, 0);
    let order = [
        "POST /v1/vms/web1/stop",
        "POST /v1/vms/web2/stop",
        "GET /v1/vms",
        "POST /v1/vms/db/stop",
        "GET /v1/vms/db",
    ];
    assert_eq!(fake.lines()[1..], order);
}

#[test]
fn a_vm_without_a_power_button_is_asked_again_where_all_are_to_stop() {
    let fake = Fake::new();
    fake.on("GET /v1/vms", 200, &json!([vm("a", "starting"), vm("b", "paused")]));
    let mut booting = vm("a", "starting");
    booting["pid"] = json!(7);
    fake.on("POST /v1/vms/a/stop", 409, &error("VM a is being started: try again, or kill it"));
    fake.on("POST /v1/vms/a/stop", 200, &vm("a", "stopping"));
    fake.on("GET /v1/vms/a", 200, &booting).on("GET /v1/vms/a", 200, &vm("a", "off"));
    // One ends by itself.
    fake.on("POST /v1/vms/b/stop", 409, &error("VM b is off"));
    fake.on("GET /v1/vms/b", 200, &vm("b", "off"));
    fake.run(&["stop", "--all"]).prints("b is off: the guest shut down\na is off: the guest shut down\n");
    let pressed = fake.lines().into_iter().filter(|line| line == "POST /v1/vms/a/stop").count();
    assert_eq!(pressed, 2);
}

#[test]
fn vms_that_cannot_obey_hold_up_no_others_where_all_are_to_stop() {
    let fake = Fake::new();
    let all = [placed("first", "on", 1), placed("paused", "paused", 9), placed("queued", "starting", 9)];
    fake.on("GET /v1/vms", 200, &json!(all));
    for name in ["paused", "queued"] {
        fake.on(&format!("POST /v1/vms/{name}/stop"), 409, &error(&format!("VM {name} is {name}")));
    }
    fake.on("GET /v1/vms/paused", 200, &vm("paused", "paused"));
    // It has no process.
    fake.on("GET /v1/vms/queued", 200, &vm("queued", "starting"));
    fake.on("POST /v1/vms/queued/kill", 200, &vm("queued", "off"));
    fake.on("POST /v1/vms/first/stop", 200, &vm("first", "off"));
    let begin = std::time::Instant::now();
    let done = fake.run(&["stop", "--all", "--timeout", "10m"]);
    // One order's part is five minutes.
    assert!(begin.elapsed() < std::time::Duration::from_secs(60));
    assert_eq!((done.code, done.err.as_str()), (4, "plimsoll: VM paused is paused\n"));
    assert_eq!(done.out, "queued is off: the guest shut down\nfirst is off: the guest shut down\n");
}

#[test]
fn the_time_is_for_all_start_orders_and_one_that_hangs_leaves_the_others_some() {
    let fake = Fake::new();
    let names: Vec<String> = (0..10).map(|n| format!("vm{n}")).collect();
    let hangs = |(n, name): (u16, &String)| placed(name, "on", n);
    fake.on("GET /v1/vms", 200, &json!((0..).zip(&names).map(hangs).collect::<Vec<_>>()));
    for name in &names {
        fake.on(&format!("POST /v1/vms/{name}/stop"), 200, &vm(name, "stopping"));
        fake.on(&format!("GET /v1/vms/{name}"), 200, &vm(name, "stopping"));
    }
    let begin = std::time::Instant::now();
    let done = fake.run(&["stop", "--all", "--timeout", "2s"]);
    // Two seconds for each were 20.
    assert!(begin.elapsed() < std::time::Duration::from_secs(15));
    assert_eq!((done.code, done.err.matches("is still on after 2s").count()), (1, 10), "{}", done.err);
    let pressed: Vec<String> = fake.lines().into_iter().filter(|line| line.starts_with("POST")).collect();
    let expected: Vec<String> = names.iter().rev().map(|name| format!("POST /v1/vms/{name}/stop")).collect();
    assert_eq!(pressed, expected);
}

#[test]
fn vms_are_paused_resumed_and_reset() {
    let fake = Fake::new();
    fake.on("GET /v1/vms", 200, &json!([vm("a", "on"), vm("b", "paused"), vm("c", "off")]));
    for (command, name, said) in
        [("pause", "a", "is paused"), ("resume", "b", "goes on"), ("reset", "a", "is reset")]
    {
        fake.on(&format!("POST /v1/vms/{name}/{command}"), 200, &vm(name, "on"));
        fake.on(&format!("POST /v1/vms/c/{command}"), 409, &error("VM c is off"));
        fake.run(&[command, name]).prints(&format!("{name} {said}\n"));
        fake.run(&[command, "--all"]).prints(&format!("{name} {said}\n"));
        fake.run(&[command, "c"]).fails(4, "VM c is off");
        fake.run(&[command, "d"]).fails(3, &format!("no answer for POST /v1/vms/d/{command}"));
    }
}
