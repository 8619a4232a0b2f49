//! Bad input and bad VMMs: one line that says what and where, and nothing half made.

#![allow(clippy::unwrap_used, reason = "only tests use it")]

mod host;

use std::process::Stdio;

use host::{Host, definition, error_of, exchange_tcp, wait_until};
use plimsoll_protocol::api::ErrorBody;
use plimsoll_protocol::status::{Power, VmStatus};
use plimsoll_units::Bytes;
use serde_json::{Value, json};

/// Nothing is left of a VM that was refused.
fn nothing_is_made(host: &Host) {
    let vms: Vec<VmStatus> = host.get("/v1/vms");
    assert!(vms.is_empty(), "{vms:?}");
    assert_eq!(host.status().free, host.status().budget);
    for directory in ["run/vms", "state/vms", "state/logs"] {
        let left: Vec<_> = std::fs::read_dir(host.path(directory)).unwrap().flatten().collect();
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
}

fn with(change: impl FnOnce(&mut Value)) -> String {
    let mut definition = definition("a", "64MiB");
    change(&mut definition);
    definition.to_string()
}

#[test]
fn definitions_that_cannot_work_are_refused() {
    let host = Host::new(512, "");
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(host.path(name), bytes).unwrap();
        host.path(name).display().to_string()
    };
    let (text, empty) = (write("text", &[b'x'; 4096]), write("empty", b""));
    let kernel = |path: &str| with(|d| d["boot"] = json!({"kernel": path}));
    let disk = |path: &str| with(|d| d["disk"] = json!([{"path": path}]));
    for (status, body, part) in [
        (400, "{".to_owned(), "definition"),
        (400, with(|d| d["colour"] = json!(1)), "colour"),
        (400, with(|d| d["size"] = json!("63MiB")), "63MiB"),
        (400, with(|d| d["reservation"] = json!("65MiB")), "reservation"),
        (400, with(|d| d["name"] = json!("../a")), "../a"),
        (507, with(|d| (d["size"], d["reservation"]) = (json!("1GiB"), json!("1GiB"))), "unreserved"),
        (400, kernel("vmlinuz"), "boot.kernel \"vmlinuz\": write an absolute path"),
        (400, disk("~/data.raw"), "disk.path \"~/data.raw\": write an absolute path"),
        (422, kernel("/nowhere/vmlinuz"), "/nowhere/vmlinuz"),
        (422, kernel(&text), "no Linux kernel"),
        (422, with(|d| d["boot"]["initrd"] = json!(empty)), "empty"),
        (422, disk("/nowhere/disk"), "/nowhere/disk"),
        (422, disk(&empty), "empty"),
        (422, with(|d| d["net"] = json!([{"tap": "nosuchtap"}])), "nosuchtap"),
    ] {
        let error = host.refused(status, "POST", "/v1/vms", &body);
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(host.ask("POST", "/v1/vms", &" ".repeat(100_000)).0, 413);
    nothing_is_made(&host);
}

#[test]
fn a_disk_has_one_writer() {
    let host = Host::new(512, "");
    let disk = host.path("disk.raw");
    std::fs::write(&disk, [0; 4096]).unwrap();
    let with_disk = |name: &str| {
        let mut definition = definition(name, "64MiB");
        definition["disk"] = json!([{"path": disk}]);
        definition.to_string()
    };
    assert_eq!(host.ask("POST", "/v1/vms", &with_disk("a")).0, 200);
    let error = host.refused(422, "POST", "/v1/vms", &with_disk("b"));
    assert!(error.contains("disk.raw") && error.contains("in use"), "{error}");
    assert!(host.refused(409, "POST", "/v1/vms", &with_disk("a")).contains("is on"));
    assert_eq!(host.ask("POST", "/v1/vms/a/kill", "").0, 200);
    assert_eq!(host.ask("POST", "/v1/vms", &with_disk("b")).0, 200);
}

#[test]
fn paths_and_methods_that_are_not_there_answer_as_errors() {
    let host = Host::new(512, "");
    assert!(host.refused(404, "GET", "/v2/host", "").contains("no such path"));
    assert!(host.refused(405, "PUT", "/v1/vms", "").contains("method"));
    assert!(host.refused(400, "GET", "/v1/vms/%ff", "").contains("UTF-8"));
    assert!(host.refused(400, "DELETE", "/v1/pools/%ff", "").contains("UTF-8"));
    assert!(host.refused(404, "POST", "/v1/vms/nobody/stop", "").contains("nobody"));
    assert!(host.refused(400, "GET", "/v1/vms/-x", "").contains("-x"));
    host.run("a", "64MiB");
    assert!(host.refused(400, "PATCH", "/v1/vms/a", r#"{"limit": "1MiB"}"#).contains("limit"));
    assert!(host.refused(400, "PATCH", "/v1/vms/a", r#"{"size": "1MiB"}"#).contains("size"));
}

#[test]
fn programs_tell_kinds_of_errors_apart_by_type_and_each_is_documented() {
    let host = Host::new(512, "");
    host.run("a", "64MiB");
    let table = include_str!("../../protocol/src/api.rs");
    let big = with(|d| (d["size"], d["reservation"]) = (json!("1GiB"), json!("1GiB")));
    for (status, kind, method, path, body) in [
        (400, "invalid", "POST", "/v1/vms", "{"),
        (404, "no-path", "GET", "/v2", ""),
        (404, "unknown", "GET", "/v1/vms/nobody", ""),
        (405, "no-method", "PUT", "/v1/vms", ""),
        (409, "conflict", "POST", "/v1/vms/a/start", ""),
        (413, "too-long", "POST", "/v1/vms", " ".repeat(100_000).as_str()),
        (422, "unfit", "POST", "/v1/vms", definition("mute", "64MiB").to_string().as_str()),
        (507, "no-memory", "POST", "/v1/vms", big.replace("\"a\"", "\"b\"").as_str()),
    ] {
        let (got, answer) = host.ask(method, path, body);
        let problem: ErrorBody = serde_json::from_str(&answer).unwrap();
        assert_eq!((got, problem.kind), (status, format!("urn:plimsoll:problem:{kind}")), "{answer}");
        assert!(table.contains(&format!("//! | {status} | `{kind}` |")), "{status} {kind}");
    }
}

#[test]
fn a_vmm_that_does_not_come_up_leaves_nothing() {
    let host = Host::new(512, "");
    let foreign = format!("speaks version {}", plimsoll_protocol::control::VERSION + 1);
    for (name, part) in
        [("mute", "the VMM"), ("old", foreign.as_str()), ("broken", "the VMM failed: it is broken")]
    {
        let error = host.refused(422, "POST", "/v1/vms", &definition(name, "64MiB").to_string());
        assert!(error.contains(name) && error.contains(part), "{error}");
        nothing_is_made(&host);
    }
}

#[test]
fn a_hostile_vmm_ends_itself_only() {
    let host = Host::new(512, "");
    let good = host.run("good", "64MiB");
    host.run("flood", "64MiB");
    for name in ["garbage", "returner"] {
        host.run(name, "64MiB");
        let off = wait_until("it is ended", || Some(host.vm(name)).filter(|vm| vm.power == Power::Off));
        assert!(off.exit.unwrap().to_string().contains("broke the protocol"));
    }
    // The flood goes on, and the daemon answers; what it wants is within its limit.
    assert!(host.vm("flood").grant <= Bytes::mib(64));
    assert_eq!((host.vm("good").pid, host.vm("good").grant), (good.pid, good.grant));
    assert_eq!(host.ask("POST", "/v1/vms/flood/kill", "").0, 200);
    assert_eq!(host.status().granted, good.grant);
}

#[test]
fn a_vmm_that_takes_more_than_it_was_granted_is_ended_alone() {
    let host = Host::new(512, "");
    let good = host.run("good", "64MiB");
    host.run("hog", "64MiB");
    let off = wait_until("it is ended", || Some(host.vm("hog")).filter(|vm| vm.power == Power::Off));
    let exit = off.exit.unwrap().to_string();
    assert!(exit.contains("more than the") || exit.contains("OOM killer"), "{exit}");
    assert_eq!((host.vm("good").pid, host.vm("good").grant), (good.pid, good.grant));
    assert_eq!(host.status().granted, good.grant);
}

#[test]
fn a_daemon_that_cannot_work_says_why_in_one_line() {
    let host = Host::new(512, "");
    let run = |config: &str, arguments: &[&str]| {
        std::fs::write(host.path("other.toml"), config).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_plimsolld"));
        command.arg("--config").arg(host.path("other.toml")).args(arguments);
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    for (config, part) in [
        ("colour = 1\n", "colour"),
        ("budget = '4096TiB'\n", "the machine has"),
        ("vmm = '/nowhere/vmm'\n", "/nowhere/vmm"),
        ("state_directory = '/proc/nowhere'\nrun_directory = '/proc/nowhere'\n", "/proc/nowhere"),
    ] {
        let vmm = if config.contains("vmm") { "" } else { "vmm = '/bin/true'\n" };
        let own = if config.contains("directory") {
            String::new()
        } else {
            format!("state_directory = {:?}\nrun_directory = {:?}\n", host.path("s2"), host.path("r2"))
        };
        let (good, error) = run(&format!("{own}{vmm}{config}"), &[]);
        assert!(!good && error.contains(part), "{part}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    assert!(run("vmm = '/bin/true'\n", &["--check"]).0);
    let (good, error) = run("vmm = '/bin/true'\nbudget = '4096TiB'\n", &["--check"]);
    assert!(!good && error.contains("the machine has"), "{error}");
    let second = host.command().output().unwrap();
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success() && error.contains("another plimsolld"), "{error}");
    // Nor does it share the run directory with a daemon that has another state directory.
    let own = format!("state_directory = {:?}\nrun_directory = {:?}\n", host.path("s3"), host.path("run"));
    let (good, error) = run(&format!("{own}vmm = '/bin/true'\nsocket = {:?}\n", host.path("s3.sock")), &[]);
    assert!(!good && error.contains("another plimsolld") && error.contains("/run is in use"), "{error}");
    host.status();
}

#[test]
fn tcp_is_there_when_asked_for_and_wants_the_token() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
    let host = Host::new(512, &format!("[tcp]\nlisten = '127.0.0.1:0'\ntoken_file = {token:?}\n"));
    let address = wait_until("the address is in the log", || {
        let log = host.log();
        let (_, rest) = log.split_once("also on tcp ")?;
        rest.split_once(',').map(|(address, _)| address.to_owned())
    });
    for header in ["", "authorization: Bearer 0123456789abcdeF\r\n", "authorization: 0123456789abcdef\r\n"] {
        let (status, body) = exchange_tcp(&address, "/v1/host", header);
        assert_eq!(status, 401, "{body}");
        assert!(error_of(&body).contains("token"));
    }
    let (status, body) = exchange_tcp(&address, "/v1/host", "authorization: Bearer 0123456789abcdef\r\n");
    assert_eq!(status, 200, "{body}");
}

#[test]
fn pools_that_cannot_be_are_refused_by_field_and_value() {
    let host = Host::new(512, "");
    host.run("a", "64MiB");
    let made = r#"{"name": "prod", "reservation": "64MiB", "limit": "256MiB"}"#;
    assert_eq!(host.ask("POST", "/v1/pools", made).0, 200);
    assert_eq!(host.ask("POST", "/v1/pools", r#"{"name": "web", "parent": "prod"}"#).0, 200);
    assert_eq!(host.ask("PATCH", "/v1/vms/a", r#"{"pool": "web"}"#).0, 200);
    let before: Value = host.get("/v1/pools");
    for (status, method, path, body, part) in [
        (400, "POST", "/v1/pools", r#"{"name": "a/b"}"#, "name: \"a/b\" is not a pool name"),
        (400, "POST", "/v1/pools", r#"{"name": "x", "parent": "nobody"}"#, "\"nobody\" is no pool"),
        (409, "POST", "/v1/pools", r#"{"name": "prod"}"#, "name prod is taken"),
        (400, "POST", "/v1/pools", r#"{"name": "x", "reservation": -1}"#, "reservation: -1 is not a size"),
        (
            400,
            "POST",
            "/v1/pools",
            r#"{"name": "x", "reservation": 18446744073709551615}"#,
            "reservation 16777216.0TiB",
        ),
        (
            400,
            "POST",
            "/v1/pools",
            r#"{"name": "x", "reservation": 18446744073709551616}"#,
            "reservation: invalid type",
        ),
        (400, "POST", "/v1/pools", r#"{"name": "x", "shares": NaN}"#, "shares"),
        (400, "POST", "/v1/pools", r#"{"name": "x", "colour": 1}"#, "colour"),
        (400, "PATCH", "/v1/pools/prod", r#"{"parent": "web"}"#, "a cycle: prod < web < prod"),
        (
            400,
            "PATCH",
            "/v1/pools/prod",
            r#"{"reservation": "257MiB"}"#,
            "reservation 257MiB is over the limit 256MiB",
        ),
        (400, "PATCH", "/v1/pools/prod", r#"{"limit": "1MiB"}"#, "over the limit 1MiB"),
        (400, "PATCH", "/v1/pools/prod", r#"{"limit": "few"}"#, "limit: \"few\" is not a size"),
        (400, "PATCH", "/v1/pools/prod", r#"{"shares": 0}"#, "shares: shares \"0\""),
        (404, "PATCH", "/v1/pools/nobody", r#"{"shares": 1}"#, "pool nobody"),
        (404, "GET", "/v1/pools/nobody", "", "pool nobody"),
        (409, "DELETE", "/v1/pools/prod", "", "still holds pool web"),
        (409, "DELETE", "/v1/pools/web", "", "still holds VM a"),
        (400, "PATCH", "/v1/vms/a", r#"{"pool": "nobody"}"#, "pool nobody"),
        (400, "PATCH", "/v1/vms/a", r#"{"tax": 1}"#, "tax: tax 1: must be a number from 0 to 0.99"),
        (400, "PATCH", "/v1/vms/a", r#"{"limit": -4096}"#, "limit: -4096 is not a size"),
        (
            400,
            "POST",
            "/v1/vms",
            &with(|d| d["pool"] = json!("nobody")).replace("\"a\"", "\"b\""),
            "pool nobody",
        ),
    ] {
        let error = host.refused(status, method, path, body);
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(host.get::<Value>("/v1/pools"), before);
    assert_eq!(host.vm("a").pool.to_string(), "web");
}
