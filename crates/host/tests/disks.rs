//! Disks of VMs: who may use them, and what is told of them.

#![allow(clippy::unwrap_used, reason = "only tests use it")]

mod host;

use std::fs::File;
use std::path::Path;

use host::{Host, definition, wait_until};
use plimsoll_protocol::status::Power;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use tempfile::TempPath;

/// A disk of 1 MiB below `directory`.
fn image(directory: &Path) -> TempPath {
    let file = tempfile::NamedTempFile::new_in(directory).unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    file.into_temp_path()
}

fn with_disk(name: &str, disk: &Value) -> String {
    let mut definition = definition(name, "64MiB");
    definition["disk"] = json!([disk]);
    definition.to_string()
}

#[test]
fn a_disk_stays_locked_while_its_vm_lives_whatever_becomes_of_the_daemon() {
    let mut host = Host::new(512, "");
    let path = image(Path::new("/var/tmp"));
    let disk = json!({"path": path.to_path_buf()});
    assert_eq!(host.ask("POST", "/v1/vms", &with_disk("a", &disk)).0, 200);
    let pid = host.vm("a").pid.unwrap();
    host.kill_daemon();
    let file = File::open(&path).unwrap();
    assert!(flock(&file, FlockOperation::NonBlockingLockShared).is_err());
    host.start();
    let error = host.refused(422, "POST", "/v1/vms", &with_disk("b", &disk));
    // The holder is named, although the daemon that gave it the disk is gone.
    let holder = format!("plimsoll-vmm a (process {pid})");
    assert!(error.contains("it is in use by ") && error.contains(&holder), "{error}");
    assert_eq!(host.ask("POST", "/v1/vms/a/kill", "").0, 200);
    wait_until("it is off", || Some(host.vm("a")).filter(|vm| vm.power == Power::Off));
    flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    drop(file);
    assert_eq!(host.ask("POST", "/v1/vms", &with_disk("b", &disk)).0, 200);
}
