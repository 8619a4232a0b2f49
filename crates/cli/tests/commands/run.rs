//! Definitions on their way to the daemon and back.

use serde_json::{Value, json};

use crate::fake::{Done, Fake, vm};

fn definition(fake: &Fake, text: &str) -> String {
    let path = fake.path("a.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const GOOD: &str = "name = 'a'\nsize = '256MiB'\n[boot]\nkernel = 'vmlinuz'\n";

#[test]
fn a_definition_is_printed_as_a_file_that_can_be_run_again() {
    let fake = Fake::new();
    let given = json!({"name": "a", "size": 256 << 20, "limit": 200 << 20, "boot": {"kernel": "/vmlinuz"}});
    fake.on("GET /v1/vms/a/definition", 200, &given).on("POST /v1/vms", 200, &vm("a", "on"));
    let text = "name = \"a\"\nsize = \"256MiB\"\nlimit = \"200MiB\"\n\n[boot]\nkernel = \"/vmlinuz\"\n";
    fake.run(&["inspect", "a"]).prints(text);
    let json: Value = serde_json::from_str(&fake.run(&["inspect", "a", "--json"]).out).unwrap();
    assert_eq!(json, given);
    let path = definition(&fake, text);
    assert_eq!(fake.run(&["run", &path]).code, 0);
    let asked = fake.requests();
    let (_, body) = asked.iter().find(|(line, _)| line == "POST /v1/vms").unwrap();
    assert_eq!(serde_json::from_str::<Value>(body).unwrap(), given);
}

#[test]
fn a_definition_is_checked_before_the_daemon_hears_of_it() {
    let fake = Fake::new();
    let path = definition(&fake, &GOOD.replace("256MiB", "33MiB"));
    let done = fake.run(&["run", &path]);
    assert!(done.err.starts_with(&format!("plimsoll: {path}: line 2: size 33MiB")), "{done:?}");
    assert_eq!((done.code, fake.lines()), (2, vec![]));
}

#[test]
fn run_sends_absolute_paths_and_says_what_it_started() {
    let fake = Fake::new();
    fake.on("POST /v1/vms", 201, &vm("a", "starting"));
    fake.on("GET /v1/vms/a", 200, &vm("a", "starting")).on("GET /v1/vms/a", 200, &vm("a", "on"));
    definition(&fake, GOOD);
    let mut command = fake.command(&["run", "a.toml", "--wait"]);
    let done = Done::new(&command.current_dir(fake.path("")).output().unwrap());
    done.prints("a runs (256MiB, 1 vCPU); see it with: plimsoll console a\n");
    let sent: Value = serde_json::from_str(&fake.requests()[0].1).unwrap();
    assert_eq!(sent["boot"]["kernel"], json!(fake.path("vmlinuz")));
}

#[test]
fn a_vm_that_does_not_stay_on_fails_the_wait() {
    let fake = Fake::new();
    let mut failed = vm("a", "off");
    failed["exit"] = json!({"told": {"failed": "the kernel is truncated"}});
    fake.on("POST /v1/vms", 201, &vm("a", "starting")).on("GET /v1/vms/a", 200, &failed);
    let path = definition(&fake, GOOD);
    fake.run(&["run", &path, "--wait"]).fails(
        1,
        "a stopped right after it started: the VMM failed: the kernel is truncated; see plimsoll logs a --vmm",
    );
}

#[test]
fn run_says_what_a_host_without_swap_space_cannot_promise() {
    let fake = Fake::new();
    let mut host = json!({
        "budget": 1, "granted": 0, "overhead": 0, "free": 1, "reserved": 0, "held": 0, "ballooned": 0, "kernel": 0, "peak_ledger": 0,
        "peak_kernel": 0, "state": "high", "high_threshold": 1, "running": 1, "version": "0.1.0"
    });
    let path = definition(&fake, GOOD);
    fake.on("POST /v1/vms", 201, &vm("a", "on")).on("GET /v1/host", 200, &host);
    host["no_swap"] = json!("swap space: /s is on tmpfs, which is memory");
    fake.on("GET /v1/host", 200, &host);
    assert_eq!(fake.run(&["run", &path]).err, "");
    let done = fake.run(&["run", &path]);
    assert!(
        done.err.starts_with("note: this host has no swap space") && done.err.contains("/s is on tmpfs"),
        "{done:?}"
    );
    assert_eq!(done.code, 0);
}

#[test]
fn run_places_a_vm_in_a_pool() {
    let fake = Fake::new();
    fake.on("POST /v1/vms", 201, &vm("a", "on"));
    let path = definition(&fake, &format!("pool = 'x'\n{GOOD}"));
    assert_eq!(fake.run(&["run", &path, "--pool", "prod"]).code, 0);
    assert_eq!(fake.run(&["run", &path]).code, 0);
    let pools: Vec<Value> = fake
        .requests()
        .iter()
        .filter(|(line, _)| line.starts_with("POST"))
        .map(|(_, body)| serde_json::from_str::<Value>(body).unwrap()["pool"].clone())
        .collect();
    assert_eq!(pools, ["prod", "x"]);
}
