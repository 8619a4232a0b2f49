//! The commands against a scripted daemon: what they ask, what they print, how they fail.

#![expect(clippy::unwrap_used, reason = "a test states what must hold by unwrapping")]

mod console;
mod cp;
mod define;
#[path = "../fake/mod.rs"]
mod fake;
mod from_image;
mod run;
mod several;
mod top;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use fake::{Done, Fake, error, plimsoll, vm};
use serde_json::{Value, json};

#[test]
fn without_a_daemon_the_error_says_how_to_get_one() {
    let done = Done::new(&plimsoll(&["ps", "--socket", "/nonexistent/s"]).output().unwrap());
    done.fails(
        6,
        "no daemon: the socket /nonexistent/s does not exist; start plimsolld, or name its socket with --socket",
    );
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    let done = Done::new(&plimsoll(&["ps"]).env("PLIMSOLL_SOCKET", &path).output().unwrap());
    let line = format!(
        "no daemon: no process listens at {}; start plimsolld again, or name its socket with --socket",
        path.display()
    );
    done.fails(6, &line);
}

#[test]
fn the_token_is_shown_to_a_daemon_on_tcp() {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&token, "secret\n").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let daemon = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 401 X\r\ncontent-length: 0\r\n\r\n").unwrap();
        String::from_utf8(request).unwrap()
    });
    let command = plimsoll(&["ps", "--url", &url, "--token-file", token.path().to_str().unwrap()]).output();
    Done::new(&command.unwrap()).fails(6, "the daemon refuses the token for GET /v1/vms: check --token-file");
    assert!(daemon.join().unwrap().contains("authorization: Bearer secret\r\n"));
}

#[test]
fn errors_are_json_where_facts_are() {
    for (args, code) in
        [(&["ps", "--json", "--socket", "/nonexistent/s"][..], 6), (&["set", "a", "--json"], 2)]
    {
        let done = Done::new(&plimsoll(args).output().unwrap());
        let error: Value = serde_json::from_str(&done.err).unwrap();
        assert!(error["error"].as_str().is_some_and(|text| !text.contains('\n')), "{done:?}");
        assert_eq!((done.code, done.out.as_str()), (code, ""));
    }
}

#[test]
fn a_command_line_that_makes_no_sense_is_told_in_a_line() {
    for (args, text) in [
        (
            &["set", "a", "--reservation", "10MB"][..],
            "invalid value '10MB' for '--reservation <SIZE>': \"10MB\" is not a size: write a number and a unit, \
             such as 512MiB, 1.5GiB or 4096 (bytes)",
        ),
        (
            &["set", "a"],
            "the following required arguments were not provided: \
             <--shares <SHARES>|--reservation <SIZE>|--limit <SIZE>|--pool <POOL>|--tax <TAX>|\
             --autostart <true|false>|--start-order <N>|--start-delay <TIME>|--add-label <KEY=VALUE>|--remove-label <KEY>|--sharing <DOMAIN>|\
             --iops <N>|--packets <N>|--bandwidth <SIZE>|--burst <TIME>|--link <STATE>|--mac-filter <true|false>>; try plimsoll set --help",
        ),
    ] {
        let done = Done::new(&plimsoll(args).output().unwrap());
        assert_eq!((done.code, done.err.as_str()), (2, format!("plimsoll: {text}\n").as_str()));
    }
    let done = Done::new(&plimsoll(&[]).output().unwrap());
    assert!(done.code == 2 && done.err.contains("Commands:"), "{done:?}");
}

#[test]
fn the_daemons_error_is_told_in_its_own_words() {
    let fake = Fake::new();
    fake.on("DELETE /v1/vms/a", 409, &error("a is on: stop it first (plimsoll stop a)"));
    fake.run(&["rm", "a"]).fails(4, "a is on: stop it first (plimsoll stop a)");
    fake.on_text("GET /v1/vms", 502, "<html>");
    fake.run(&["ps"]).fails(
        1,
        "the daemon answered 502 Bad Gateway to GET /v1/vms: is it plimsolld, and of this version?",
    );
    fake.on_text("GET /v1/events", 200, "{}");
    let done = fake.run(&["events"]);
    assert!(done.err.contains("the daemon's answer to GET /v1/events cannot be read"), "{done:?}");
}

#[test]
fn stop_waits_until_the_vm_is_off() {
    let fake = Fake::new();
    fake.on("POST /v1/vms/a/stop", 200, &vm("a", "stopping"));
    fake.on("GET /v1/vms/a", 200, &vm("a", "stopping")).on("GET /v1/vms/a", 200, &vm("a", "off"));
    fake.run(&["stop", "a"]).prints("a is off: the guest shut down\n");
}

#[test]
fn a_guest_that_ignores_the_button_is_told_of_or_killed() {
    let fake = Fake::new();
    fake.on("POST /v1/vms/a/stop", 200, &vm("a", "stopping")).on("GET /v1/vms/a", 200, &vm("a", "stopping"));
    fake.run(&["stop", "a", "--timeout", "10ms"]).fails(
        1,
        "a is still on after 10ms: its guest ignores the power button; \
         see plimsoll console a, or end it with plimsoll kill a",
    );
    let mut killed = vm("a", "off");
    killed["exit"] = json!("killed-by-operator");
    fake.on("POST /v1/vms/a/kill", 200, &killed);
    fake.run(&["stop", "a", "--timeout", "10ms", "--kill"]).prints("a is off: killed by the operator\n");
}

#[test]
fn stop_with_kill_ends_a_vm_that_has_no_button_yet() {
    let fake = Fake::new();
    fake.on("POST /v1/vms/a/stop", 409, &error("VM a is being started: try again, or kill it"));
    fake.on("GET /v1/vms/a", 200, &vm("a", "starting")).on("POST /v1/vms/a/kill", 200, &vm("a", "off"));
    fake.run(&["stop", "a"]).fails(4, "VM a is being started: try again, or kill it");
    assert_eq!(fake.run(&["stop", "a", "--kill"]).code, 0);
    fake.on("POST /v1/vms/b/stop", 409, &error("VM b is off")).on("GET /v1/vms/b", 200, &vm("b", "off"));
    fake.run(&["stop", "b", "--kill"]).fails(4, "VM b is off");
}

#[test]
fn set_sends_only_what_changes() {
    let fake = Fake::new();
    fake.on("PATCH /v1/vms/a", 200, &vm("a", "on"));
    assert_eq!(fake.run(&["set", "a", "--shares", "high"]).code, 0);
    assert_eq!(fake.run(&["set", "a", "--limit", "none", "--reservation", "1MiB"]).code, 0);
    assert_eq!(fake.run(&["set", "a", "--pool", "/", "--tax", "0.5"]).code, 0);
    assert_eq!(fake.run(&["set", "a", "--pool", "prod", "--tax", "none"]).code, 0);
    assert_eq!(fake.run(&["set", "a", "--add-label", "tier=web", "--remove-label", "env"]).code, 0);
    let bodies: Vec<Value> =
        fake.requests().iter().map(|(_, body)| serde_json::from_str(body).unwrap()).collect();
    assert_eq!(
        bodies,
        [
            json!({"shares": "high"}),
            json!({"limit": "none", "reservation": 1 << 20}),
            json!({"pool": "/", "tax": 0.5}),
            json!({"pool": "prod", "tax": "none"}),
            json!({"labels": {"tier": "web", "env": null}}),
        ]
    );
}

#[test]
fn pools_are_made_changed_and_removed() {
    let fake = Fake::new();
    let pool = json!({
        "name": "web", "parent": "prod", "shares": "high", "share_count": 327_680, "reservation": 1 << 30,
        "limit": 2_u64 << 30, "expandable": false, "reserved": 0, "entitled": 0, "granted": 0, "pools": [], "vms": []
    });
    fake.on("POST /v1/pools", 200, &pool).on("PATCH /v1/pools/web", 200, &pool);
    fake.on("GET /v1/pools", 200, &json!([pool]));
    fake.on("DELETE /v1/pools/web", 409, &error("pool web still holds VM a: move or remove them first"));
    let line = "pool web: in prod, shares high (327680), reservation 1GiB, limit 2GiB, not expandable\n";
    let create = ["pool", "create", "web", "--parent", "prod", "--shares", "high", "--reservation", "1GiB"];
    fake.run(&[&create[..], &["--limit", "2GiB", "--expandable", "false"]].concat()).prints(line);
    fake.run(&["pool", "set", "web", "--limit", "none", "--parent", "/"]).prints(line);
    fake.run(&["pool", "rm", "web"]).fails(4, "pool web still holds VM a: move or remove them first");
    let listed: Value = serde_json::from_str(&fake.run(&["pool", "ls", "--json"]).out).unwrap();
    assert_eq!(listed[0]["limit"], json!(2_u64 << 30));
    let bodies: Vec<Value> =
        fake.requests().iter().filter_map(|(_, body)| serde_json::from_str(body).ok()).collect();
    let made = json!({
        "name": "web", "parent": "prod", "shares": "high", "reservation": 1 << 30, "limit": 2_u64 << 30,
        "expandable": false
    });
    assert_eq!(bodies, [made, json!({"limit": "none", "parent": "/"})]);
}

#[test]
fn a_history_is_printed_as_the_daemon_writes_it() {
    let fake = Fake::new();
    let csv = "seconds,vm,active_bytes,held_bytes,entitlement_bytes,ballooned_bytes\n0,a,1,2,3,4\n";
    fake.on_text("GET /v1/history?format=csv&vm=a", 200, csv).on_text("GET /v1/history?format=csv", 200, csv);
    fake.run(&["history", "a", "--csv"]).prints(csv);
    fake.run(&["history", "--csv"]).prints(csv);
    fake.on("GET /v1/history?vm=b", 404, &error("there is no VM b"));
    fake.run(&["history", "b"]).fails(3, "there is no VM b");
}

#[test]
fn json_is_what_the_daemon_said() {
    let fake = Fake::new();
    fake.on("GET /v1/vms", 200, &json!([vm("a", "on")])).on("GET /v1/vms/a", 200, &vm("a", "on"));
    let list: Value = serde_json::from_str(&fake.run(&["ps", "--json"]).out).unwrap();
    assert_eq!((&list[0]["name"], &list[0]["size"]), (&json!("a"), &json!(256 << 20)));
    let one: Value = serde_json::from_str(&fake.run(&["--json", "show", "a"]).out).unwrap();
    assert_eq!(one["power"], "on");
}

#[test]
fn a_log_that_is_followed_is_printed_once() {
    let fake = Fake::new();
    let log = "GET /v1/vms/a/log?source=console";
    fake.on_text(log, 200, "one\ntwo\n").on_text(log, 200, "two\nthree\n").on_text(log, 404, "gone");
    let done = fake.run(&["logs", "a", "-f"]);
    assert_eq!((done.code, done.out.as_str()), (3, "one\ntwo\nthree\n"));
    let fake = Fake::new();
    fake.on_text("GET /v1/vms/a/log?source=vmm", 200, "one\ntwo\nthree\n");
    fake.run(&["logs", "a", "--vmm", "-n", "2"]).prints("two\nthree\n");
    fake.run(&["logs", "b"]).fails(3, "no answer for GET /v1/vms/b/log?source=console");
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let fake = Fake::new();
    fake.on_text("GET /v1/vms/a/log?source=console", 200, &"line\n".repeat(1 << 20));
    let mut child =
        fake.command(&["logs", "a"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 5]).unwrap();
    drop(out);
    let done = Done::new(&child.wait_with_output().unwrap());
    assert_eq!((done.code, done.err.as_str()), (0, ""));
}

#[test]
fn a_list_has_the_columns_that_are_asked_for() {
    let fake = Fake::new();
    fake.on("GET /v1/vms", 200, &json!([vm("a", "on"), vm("b", "off")]));
    fake.run(&["ps", "-o", "power,name"]).prints("POWER  NAME\non     a\noff    b\n");
    fake.run(&["ps", "--format", "{name}={state}"]).prints("a=on\nb=off\n");
    let text = "--format and --json name two formats: use one of them";
    assert_eq!(fake.run(&["ps", "--format", "{name}", "--json"]).err, format!("{{\"error\":\"{text}\"}}\n"));
    assert_eq!(fake.run(&["ps", "-o", "colour"]).code, 2);
}

#[test]
fn events_are_told_since_a_time_and_in_local_time() {
    let fake = Fake::new();
    let event = |id, at| json!({"id": id, "at": at, "text": "state soft"});
    fake.on(
        "GET /v1/events",
        200,
        &json!([event(1, "2026-01-01T00:00:00Z"), event(2, "2026-01-02T00:00:00Z")]),
    );
    let mut command = fake.command(&["events", "--since", "2026-01-01T12:00"]);
    let done = Done::new(&command.env("TZ", "IST-5:30").output().unwrap());
    done.prints("2026-01-02T05:30:00.000+05:30  host  state soft\n");
    fake.run(&["events", "--since", "10m"]).prints("");
    assert_eq!(fake.run(&["events", "--since", "soon"]).code, 2);
    // What is older is not told later, either.
    fake.on("GET /v1/events?after=2", 404, &error("enough"));
    fake.run(&["events", "--since", "10m", "-f"]).fails(3, "enough");
}

#[test]
fn top_without_a_terminal_prints_blocks() {
    let fake = Fake::new();
    let host = json!({
        "budget": 640 << 20, "granted": 0, "overhead": 0, "free": 640 << 20, "reserved": 0, "held": 0,
        "ballooned": 0, "kernel": 0, "peak_ledger": 0, "peak_kernel": 0, "state": "high",
        "high_threshold": 1 << 20, "running": 1, "version": "0.1.0"
    });
    fake.on("GET /v1/host", 200, &host).on("GET /v1/host", 200, &host).on(
        "GET /v1/host",
        404,
        &error("enough"),
    );
    fake.on("GET /v1/vms", 200, &json!([vm("a", "on")]));
    let done = fake.run(&["top", "--interval", "100ms"]);
    assert_eq!(
        done.out.matches("budget 640MiB = granted 0B + overhead 0B + frames 0B + free 640MiB\n").count(),
        2,
        "{done:?}"
    );
    assert_eq!(done.err, "plimsoll: enough\n");
}

#[test]
fn doctor_and_version_need_no_daemon() {
    let done = Done::new(&plimsoll(&["doctor", "--json", "--socket", "/nonexistent/s"]).output().unwrap());
    let report: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(report["can_run"], json!(done.code == 0));
    assert!(report["checks"].as_array().is_some_and(|checks| checks.len() > 10));
    let done = Done::new(&plimsoll(&["version", "--socket", "/nonexistent/s"]).output().unwrap());
    assert!(done.code == 0 && done.out.ends_with("plimsolld not reached\n"), "{done:?}");
}
