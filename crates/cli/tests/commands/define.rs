//! Definitions that are made, edited and renamed.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::fake::{Done, Fake, error, vm};

/// A daemon with the VM `a`, off.
fn with_a() -> Fake {
    let fake = Fake::new();
    let given = json!({"name": "a", "size": 256 << 20, "boot": {"kernel": "/vmlinuz"}});
    fake.on("GET /v1/vms/a/definition", 200, &given).on("PUT /v1/vms/a/definition", 200, &vm("a", "off"));
    fake
}

/// `plimsoll edit a` with a shell script as the editor.
fn edit(fake: &Fake, script: &str) -> Done {
    let editor = fake.path("editor");
    std::fs::write(&editor, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&editor, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = fake.command(&["edit", "a"]);
    command.env("EDITOR", &editor).env_remove("VISUAL").env("TMPDIR", fake.path(""));
    Done::new(&command.output().unwrap())
}

/// Texts that were kept for their editors.
fn kept(fake: &Fake) -> Vec<PathBuf> {
    let files = std::fs::read_dir(fake.path("")).unwrap().flatten().map(|entry| entry.path());
    files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect()
}

fn puts(fake: &Fake) -> Vec<Value> {
    let puts = fake.requests().into_iter().filter(|(line, _)| line.starts_with("PUT"));
    puts.map(|(_, body)| serde_json::from_str(&body).unwrap()).collect()
}

#[test]
fn a_vm_is_created_and_not_started() {
    let fake = Fake::new();
    fake.on("POST /v1/vms?start=false", 200, &vm("a", "off"));
    let path = fake.path("a.toml");
    std::fs::write(&path, "name = 'a'\nsize = '256MiB'\n[boot]\nkernel = '/k'\n").unwrap();
    let done = fake.run(&["create", path.to_str().unwrap(), "--pool", "prod"]);
    done.prints("a is defined; start it with: plimsoll start a\n");
    let sent: Value = serde_json::from_str(&fake.requests()[0].1).unwrap();
    assert_eq!(sent, json!({"name": "a", "size": 256 << 20, "pool": "prod", "boot": {"kernel": "/k"}}));
    let taken = Fake::new();
    taken.on("POST /v1/vms?start=false", 409, &error("there is a VM a already"));
    taken.run(&["create", path.to_str().unwrap()]).fails(4, "there is a VM a already");
    std::fs::write(&path, "name = 'a'\n").unwrap();
    let before = fake.lines().len();
    assert_eq!((fake.run(&["create", path.to_str().unwrap()]).code, fake.lines().len()), (2, before));
}

#[test]
fn what_is_edited_takes_the_place_of_the_definition() {
    let fake = with_a();
    edit(&fake, "sed -i s/256MiB/512MiB/ \"$1\"").prints("a is defined anew\n");
    assert_eq!(puts(&fake), [json!({"name": "a", "size": 512 << 20, "boot": {"kernel": "/vmlinuz"}})]);
    assert_eq!(kept(&fake), Vec::<PathBuf>::new());
}

#[test]
fn an_edit_that_is_wrong_changes_nothing_and_is_kept() {
    for (script, code, part) in [
        ("sed -i s/256MiB/255MiB/ \"$1\"", 2, "line 2: size 255MiB"),
        ("echo 'colour = 1' > \"$1\"", 2, "line 1: unknown field `colour`"),
        ("sed -i 's/\"a\"/\"b\"/' \"$1\"", 2, "plimsoll rename"),
        ("printf '\\377\\376n' > \"$1\"", 2, "UTF-16"),
    ] {
        let fake = with_a();
        let done = edit(&fake, script);
        assert_eq!((done.code, done.out.as_str(), puts(&fake).len()), (code, "", 0), "{done:?}");
        assert!(done.err.contains(part) && done.err.lines().count() == 1, "{done:?}");
        let kept = kept(&fake);
        assert_eq!(kept.len(), 1, "{script}");
        assert!(done.err.contains(kept[0].to_str().unwrap()), "{done:?}");
    }
}

#[test]
fn an_edit_that_is_refused_or_too_late_is_kept() {
    let fake = with_a();
    fake.on("PUT /v1/vms/a/definition", 409, &error("VM a is on"));
    assert_eq!(edit(&fake, "sed -i s/256MiB/512MiB/ \"$1\"").code, 0);
    let done = edit(&fake, "sed -i s/256MiB/512MiB/ \"$1\"");
    assert!(done.code == 4 && done.err.starts_with("plimsoll: VM a is on; nothing is changed"), "{done:?}");
    let fake = Fake::new();
    let given = json!({"name": "a", "size": 256 << 20, "boot": {"kernel": "/k"}});
    fake.on_with("GET /v1/vms/a/definition", 200, "etag: \"one\"", &given.to_string());
    fake.on("PUT /v1/vms/a/definition", 412, &error("VM a was changed meanwhile"));
    let done = edit(&fake, "sed -i s/256MiB/512MiB/ \"$1\"");
    assert!(done.code == 4 && done.err.contains("changed meanwhile"), "{done:?}");
    assert_eq!((fake.header("if-match"), kept(&fake).len()), (Some("\"one\"".to_owned()), 1));
}

#[test]
fn an_edit_that_is_given_up_changes_nothing() {
    for (script, code) in [("true", 0), ("exit 3", 1)] {
        let fake = with_a();
        let done = edit(&fake, script);
        assert_eq!((done.code, done.out.as_str(), puts(&fake).len()), (code, "", 0), "{done:?}");
        assert_eq!((done.err.lines().count(), kept(&fake).len()), (1, 0), "{done:?}");
    }
    Fake::new().run(&["edit", "a"]).fails(3, "no answer for GET /v1/vms/a/definition");
}

#[test]
fn a_disk_grows_to_a_size_or_to_that_of_its_file() {
    let fake = Fake::new();
    fake.on("POST /v1/vms/a/resize-disk", 200, &json!({"disk": "vdb", "size": 40_u64 << 30}));
    fake.run(&["disk", "resize", "a", "vdb", "40GiB"]).prints("a: disk vdb has 40GiB\n");
    fake.run(&["disk", "resize", "a", "vdb"]).prints("a: disk vdb has 40GiB\n");
    let sent = |n: usize| serde_json::from_str::<Value>(&fake.requests()[n].1).unwrap();
    assert_eq!(sent(0), json!({"disk": "vdb", "size": 40_u64 << 30}));
    assert_eq!(sent(1), json!({"disk": "vdb"}));
    fake.on("POST /v1/vms/b/resize-disk", 422, &error("disk vda of VM b: it cannot shrink"));
    fake.run(&["disk", "resize", "b", "vda", "1GiB"]).fails(5, "disk vda of VM b: it cannot shrink");
}

#[test]
fn a_vm_is_renamed() {
    let fake = Fake::new();
    fake.on("POST /v1/vms/a/rename", 200, &vm("b", "off"));
    fake.run(&["rename", "a", "b"]).prints("a is b now\n");
    assert_eq!(serde_json::from_str::<Value>(&fake.requests()[0].1).unwrap(), json!({"name": "b"}));
    fake.on("POST /v1/vms/on/rename", 409, &error("VM on is on: stop it first"));
    fake.run(&["rename", "on", "b"]).fails(4, "VM on is on: stop it first");
}

#[test]
fn a_restart_stops_what_is_on_and_starts_it() {
    let fake = Fake::new();
    for power in ["on", "stopping", "off"] {
        fake.on("GET /v1/vms/a", 200, &vm("a", power));
    }
    fake.on("POST /v1/vms/a/stop", 200, &vm("a", "stopping")).on("POST /v1/vms/a/start", 200, &vm("a", "on"));
    let started = "a runs (256MiB, 1 vCPU); see it with: plimsoll console a\n";
    fake.run(&["restart", "a"]).prints(started);
    fake.run(&["reboot", "a"]).prints(started);
    let posts: Vec<String> = fake.lines().into_iter().filter(|line| line.starts_with("POST")).collect();
    assert_eq!(posts, ["POST /v1/vms/a/stop", "POST /v1/vms/a/start", "POST /v1/vms/a/start"]);
}

#[test]
fn a_vm_that_ignores_its_button_is_not_restarted() {
    let fake = Fake::new();
    fake.on("GET /v1/vms/a", 200, &vm("a", "on")).on("POST /v1/vms/a/stop", 200, &vm("a", "stopping"));
    let done = fake.run(&["restart", "a", "--timeout", "10ms"]);
    assert!(done.code == 1 && done.err.contains("a is still on after 10ms"), "{done:?}");
    assert!(!fake.lines().iter().any(|line| line.ends_with("start")), "{:?}", fake.lines());
}
