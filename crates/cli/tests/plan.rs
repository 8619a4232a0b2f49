//! `plimsoll plan`: what it prints for files and for the standard input, and how it fails.

#![expect(clippy::unwrap_used, reason = "a test states what must hold by unwrapping")]

#[allow(dead_code, reason = "the tests of the other commands use the rest")]
mod fake;

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

fn solve(input: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
        .args(["plan", "solve", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

fn vm(name: &str, active: u64) -> Value {
    json!({"name": name, "size": 256 << 20, "reservation": 0, "shares": 2560, "active": active << 20})
}

#[test]
fn figure_7_is_solved_from_the_standard_input() {
    for (tax, idle, busy) in [(0.0, 180, 180), (0.75, 104, 256)] {
        let host = json!({"machine_bytes": 360 << 20, "tax": tax, "vms": [vm("idle", 10), vm("busy", 256)]});
        let (code, out, err) = solve(&host.to_string());
        assert_eq!((code, err.as_str()), (0, ""));
        let answer: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(answer["entitlements"], json!({"idle": idle << 20, "busy": busy << 20}));
        assert!(answer["water_level"].as_f64().is_some_and(|level| level > 0.0));
        assert_eq!(answer.as_object().unwrap().len(), 2);
    }
}

#[test]
fn pools_and_shortfalls_are_told_where_there_are_any() {
    let mut kept = vm("kept", 0);
    kept["reservation"] = json!(256 << 20);
    kept["pool"] = json!("p");
    let pools = json!([{"name": "p", "parent": null, "shares": 1000, "reservation": 0, "limit": null, "expandable": true}]);
    let host = json!({"machine_bytes": 64 << 20, "tax": 0.75, "vms": [kept, vm("other", 0)], "pools": pools});
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("host.json");
    std::fs::write(&path, host.to_string()).unwrap();
    let done =
        Command::new(env!("CARGO_BIN_EXE_plimsoll")).args(["plan", "solve"]).arg(&path).output().unwrap();
    let answer: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(answer["pools"], json!({"p": 64 << 20}));
    let reserved = 256 << 20;
    let root = json!({"pool": null, "reserved": reserved, "has": 64 << 20});
    assert_eq!(answer["shortfalls"][0], root);
    assert_eq!(answer["entitlements"], json!({"kept": 64 << 20, "other": 0}));
}

#[test]
fn bad_input_gets_one_line_that_names_field_and_value() {
    let mut bad = vm("a", 0);
    bad["reservation"] = json!(257 << 20);
    let host = json!({"machine_bytes": 360 << 20, "tax": 0.75, "vms": [bad]});
    let expected =
        "plimsoll: standard input: vm \"a\": reservation 269484032: it is over the size 268435456\n";
    assert_eq!(solve(&host.to_string()), (1, String::new(), expected.to_owned()));
    let (code, _, err) = solve("{\"machine_bytes\": 1, \"tax\": NaN, \"vms\": []}");
    assert_eq!((code, err.lines().count()), (1, 1));
    assert!(err.starts_with("plimsoll: standard input: tax NaN: no JSON"), "{err}");
    let done = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
        .args(["plan", "solve", "/nonexistent/a.json"])
        .output()
        .unwrap();
    let err = String::from_utf8(done.stderr).unwrap();
    assert!(err.starts_with("plimsoll: reading /nonexistent/a.json: "), "{err}");
}

fn plan(args: &[&str]) -> (i32, String, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_plimsoll")).arg("plan").args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

#[test]
fn a_scenario_runs_with_and_without_the_word_and_always_alike() {
    let (code, first, err) = plan(&["figure7"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(plan(&["run", "figure7"]).1, first);
    assert!(first.contains("states ") && first.contains("busy") && !first.contains('\x1b'), "{first}");
    assert!(first.lines().all(|l| l.chars().count() <= 80), "{first}");
    assert_ne!(plan(&["figure7", "--seed", "7"]).1, first);
}

#[test]
fn a_course_is_written_and_its_csv_is_a_trace() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (code, out, _) = plan(&["figure7", "--csv", &path("a.csv"), "--svg", &path("a.svg"), "--json"]);
    assert_eq!(code, 0);
    let facts: Value = serde_json::from_str(&out).unwrap();
    assert!(facts["course"].as_array().is_some_and(|c| c.len() >= 300));
    assert!(facts["vms"][1]["backed"]["mean"].as_u64().is_some_and(|b| b > 200 << 20));
    assert!(std::fs::read_to_string(path("a.svg")).unwrap().starts_with("<svg "));
    let csv = std::fs::read_to_string(path("a.csv")).unwrap();
    let columns = "seconds,vm,active_bytes,held_bytes,entitlement_bytes,ballooned_bytes,";
    assert!(csv.starts_with(columns), "{csv:.200}");
    let again = "duration = '10m'\n[host]\nmemory = '1GiB'\n[[vm]]\nname = 'again'\nsize = '256MiB'\n\
        demand = { trace = { file = 'a.csv', vm = 'busy' } }\n";
    std::fs::write(path("b.toml"), again).unwrap();
    let (code, out, err) = plan(&[&path("b.toml"), "--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let facts: Value = serde_json::from_str(&out).unwrap();
    assert!(facts["vms"][0]["active"]["most"].as_u64().is_some_and(|b| b > 180 << 20), "{}", facts["vms"]);
}

#[test]
fn a_wrong_scenario_is_told_in_a_line_with_file_key_and_value() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "duration = '10m'\n[host]\nmemory = '1GB'\n").unwrap();
    let path = file.path().to_str().unwrap();
    let (code, out, err) = plan(&[path]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(err, format!("plimsoll: {path}: host: memory \"1GB\": a size such as \"512MiB\" is needed\n"));
    let (code, _, err) = plan(&["/none.toml"]);
    assert!(code == 1 && err.contains("/none.toml") && err.lines().count() == 1, "{err}");
    assert_eq!(plan(&[]).0, 2);
}

#[test]
fn a_database_lacks_nothing_beside_a_noisy_neighbour() {
    let (code, out, _) = plan(&["database-neighbour", "--json"]);
    assert_eq!(code, 0);
    let facts: Value = serde_json::from_str(&out).unwrap();
    let vm = |name: &str| facts["vms"].as_array().unwrap().iter().find(|vm| vm["name"] == name).unwrap();
    assert_eq!(vm("database")["short_seconds"], 0.0);
    assert!(vm("batch")["short_seconds"].as_f64().unwrap() > 3600.0);
    assert_eq!(facts["events"], json!([]));
}

const WEB: &str = "name = 'web'\nsize = '256MiB'\nreservation = '64MiB'\n[boot]\nkernel = 'k'\n";

fn host(budget: u64) -> Value {
    json!({
        "budget": budget << 20, "granted": 0, "overhead": 0, "free": budget << 20, "reserved": 0, "held": 0,
        "ballooned": 0, "kernel": 0, "peak_ledger": 0, "peak_kernel": 0, "state": "high",
        "high_threshold": 40 << 20, "running": 1, "version": "0.1.0"
    })
}

fn running() -> Value {
    let mut vm = fake::vm("a", "on");
    vm["active"] = json!(64 << 20);
    vm["overhead"] = json!(10 << 20);
    vm
}

#[test]
fn fit_asks_the_daemon_for_its_host_and_tells_what_it_assumes() {
    let daemon = fake::Fake::new();
    let decision = json!({
        "thresholds": {"high": 160 << 20, "clear": 40 << 20, "soft": 26 << 20, "hard": 13 << 20, "low": 6 << 20},
        "tax": 0.75, "largest_balloon": 65, "available": 900 << 20, "owed": 0, "reclaiming": false, "shortage": 0,
        "level": 0.0, "shortfalls": []
    });
    let now = "2026-01-01T00:00:00Z";
    let explained = json!({"at": now, "host": host(1024), "decision": decision, "pools": [], "vms": []});
    daemon.on("GET /v1/explain", 200, &explained);
    daemon.on("GET /v1/pools", 200, &json!([]));
    daemon.on("GET /v1/vms", 200, &json!([running(), fake::vm("b", "off")]));
    let definition = daemon.path("web.toml");
    std::fs::write(&definition, WEB).unwrap();
    let definition = definition.to_str().unwrap();
    let done = daemon.run(&["plan", "fit", definition]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    assert!(done.out.contains("running VMs (1) use what they use now"), "{}", done.out);
    assert!(
        done.out.contains("such a VM uses 64MiB (the same part of its size as running VMs)"),
        "{}",
        done.out
    );
    let done = daemon.run(&["plan", "fit", definition, "--json"]);
    let answer: Value = serde_json::from_str(&done.out).unwrap();
    // Each takes 64 MiB and 10.5 MiB of overhead of what 1024 MiB less one VM's overhead leave.
    assert_eq!(answer["admitted"], 13);
    assert!(answer["refusal"].as_str().is_some_and(|r| r.contains("the budget")));
    let fits = answer["fits"].as_array().unwrap();
    assert_eq!((fits[0]["state"].as_str(), fits.len()), (Some("high"), 15));
    for pair in fits.windows(2) {
        assert!(pair[0]["risk"].as_f64() <= pair[1]["risk"].as_f64());
    }
    assert_eq!(daemon.run(&["plan", "fit", definition, "--peak", "1GiB"]).code, 1);
}

#[test]
fn fit_needs_no_daemon_for_a_saved_host_or_a_scenario() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let definition = path("web.toml", WEB);
    let saved = path("host.json", &json!({"at": "", "host": host(1024), "vms": [running()]}).to_string());
    let (code, out, err) = plan(&["fit", &definition, "--host", &saved]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("admitted         13 more") && out.contains("there are no pools"), "{out}");
    let (code, out, _) = plan(&["fit", &definition, "--host", "figure8", "--active", "50MiB", "--json"]);
    assert_eq!(code, 0);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert!(answer["assumptions"][0].as_str().is_some_and(|a| a.contains("(5)")));
    let (code, _, err) = plan(&["fit", &definition, "--host", &path("bad.json", "{}")]);
    assert!(code == 1 && err.contains("plimsoll top --once --json") && err.lines().count() == 1, "{err}");
}
