//! Disks of VMs: which users they may have, and what is reported of them.

#![allow(clippy::unwrap_used, reason = "only tests use it")]

mod host;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use host::{Host, definition, wait_until};
use plimsoll_protocol::status::Power;
use rustix::fs::{FlockOperation, OFlags, flock};
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
    // The holder is named, although the daemon that gave it the disk is gone. This test has the
    // disk open, too.
    assert!(error.contains("in use by "), "{error}");
    assert!(error.contains(&format!("plimsoll-vmm a (process {pid})")), "{error}");
    assert_eq!(host.ask("POST", "/v1/vms/a/kill", "").0, 200);
    wait_until("it is off", || Some(host.vm("a")).filter(|vm| vm.power == Power::Off));
    flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    // Not by closing it: a program that another test starts may hold a copy for a moment.
    flock(&file, FlockOperation::Unlock).unwrap();
    assert_eq!(host.ask("POST", "/v1/vms", &with_disk("b", &disk)).0, 200);
}

#[test]
fn a_vmm_gets_its_writable_disk_past_the_page_cache() {
    let host = Host::new(512, "");
    let path = image(Path::new("/var/tmp"));
    for (name, cache) in [("a", None), ("b", Some("host"))] {
        let disk = json!({"path": path.to_path_buf(), "cache": cache});
        assert_eq!(host.ask("POST", "/v1/vms", &with_disk(name, &disk)).0, 200);
        let vm = host.vm(name);
        let pid = vm.pid.unwrap();
        let fd = wait_until("the VMM has the disk", || {
            let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
            let is_disk = |link: &PathBuf| std::fs::read_link(link).is_ok_and(|to| to == *path);
            links.map(|link| link.path()).find(is_disk)
        });
        let fd = fd.file_name().unwrap().to_str().unwrap().to_owned();
        let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        let direct = i64::from_str_radix(flags, 8).unwrap() & i64::from(OFlags::DIRECT.bits()) != 0;
        // Where the file system has no direct I/O, the note says so.
        assert_eq!(direct, cache.is_none() && vm.note.is_none(), "{vm:?}");
        assert_eq!(host.ask("POST", &format!("/v1/vms/{name}/kill"), "").0, 200);
        wait_until("it is off", || Some(host.vm(name)).filter(|vm| vm.power == Power::Off));
    }
}

#[test]
fn where_the_cache_cannot_be_passed_by_that_is_told_or_refused() {
    let mut host = Host::new(512, "");
    let path = image(Path::new("/dev/shm"));
    let named = json!({"path": path.to_path_buf(), "cache": "none"});
    let error = host.refused(422, "POST", "/v1/vms", &with_disk("a", &named));
    assert!(error.contains("cache = \"none\" is not possible: it is in memory (tmpfs)"), "{error}");
    let silent = json!({"path": path.to_path_buf()});
    assert_eq!(host.ask("POST", "/v1/vms", &with_disk("a", &silent)).0, 200);
    let told =
        |text: Option<&str>| text.is_some_and(|text| text.contains("goes through the host's page cache"));
    assert!(told(host.vm("a").note.as_deref()), "{:?}", host.vm("a"));
    assert!(host.events().iter().any(|event| told(Some(&event.text))));
    host.kill_daemon();
    host.start();
    host.wait_for("a", "it is adopted, and the note with it", |vm| told(vm.note.as_deref()).then_some(()));
    // The definition is as it was given.
    let definition: Value = host.get("/v1/vms/a/definition");
    assert_eq!(definition["disk"], json!([silent]));
}

#[test]
fn a_vmm_gets_the_seed_of_its_guest_and_is_charged_for_it() {
    let host = Host::new(512, "");
    let keys = json!({"ssh_authorized_keys": ["ssh-ed25519 AAAA of-this-test"]});
    for (name, keys) in [("plain", None), ("seeded", Some(&keys))] {
        let mut definition = definition(name, "64MiB");
        definition["cloud_init"] = json!(keys);
        assert_eq!(host.ask("POST", "/v1/vms", &definition.to_string()).0, 200);
    }
    let (plain, seeded) = (host.vm("plain"), host.vm("seeded"));
    assert_eq!(seeded.overhead.0 - plain.overhead.0, 512 << 10);
    let pid = seeded.pid.unwrap();
    let fd = wait_until("the VMM has the seed", || {
        let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let is_seed = |link: &PathBuf| {
            std::fs::read_link(link).is_ok_and(|to| to.starts_with("/memfd:plimsoll-seed (deleted)"))
        };
        links.map(|link| link.path()).find(is_seed)
    });
    let seed = std::fs::read(fd).unwrap();
    let holds = |text: &str| seed.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds("CIDATA") && holds("ssh-ed25519 AAAA of-this-test") && holds("local-hostname: \"seeded\""));
    let missing = json!({"user_data": "/nonexistent/user-data"});
    let mut definition = definition("c", "64MiB");
    definition["cloud_init"] = missing;
    let error = host.refused(422, "POST", "/v1/vms", &definition.to_string());
    assert!(error.contains("cloud_init: /nonexistent/user-data: cannot be opened"), "{error}");
}

#[test]
fn a_vmm_gets_an_image_with_its_backing_file_which_nobody_else_may_write() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::create_dir(at("images")).unwrap();
    File::create(at("images/base.raw")).unwrap().set_len(1 << 20).unwrap();
    let image = |name: &str, backing: &str| {
        let file = File::options().read(true).write(true).create_new(true).open(at(name)).unwrap();
        let storage = plimsoll_image::FileStorage::new(file).unwrap();
        let format = Some(plimsoll_image::Format::Raw);
        let backing = plimsoll_image::Backing { name: backing.to_owned(), format };
        plimsoll_image::create::create(&storage, 1 << 20, 65536, Some(&backing)).unwrap();
    };
    image("a.qcow2", "images/base.raw");
    image("b.qcow2", "images/base.raw");
    image("thief.qcow2", "/etc/hostname");
    let host = Host::new(512, &format!("image_directory = {:?}\n", at("images")));
    let disk = |name: &str| json!({"path": at(name), "format": "qcow2"});
    let error = host.refused(422, "POST", "/v1/vms", &with_disk("thief", &disk("thief.qcow2")));
    assert!(error.contains("/etc/hostname: it is a backing file, and does not lie below"), "{error}");
    for name in ["a", "b"] {
        assert_eq!(host.ask("POST", "/v1/vms", &with_disk(name, &disk(&format!("{name}.qcow2")))).0, 200);
    }
    let base = json!({"path": at("images/base.raw")});
    let error = host.refused(422, "POST", "/v1/vms", &with_disk("c", &base));
    assert!(error.contains("in use by plimsoll-vmm"), "{error}");
    let definition: Value = host.get("/v1/vms/a/definition");
    assert_eq!(definition["disk"], json!([disk("a.qcow2")]));
}

#[test]
fn a_disk_grows_while_its_vm_is_on_and_while_it_is_off() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root may let a process write longer files");
        return;
    }
    let host = Host::new(512, "");
    let path = image(Path::new("/var/tmp"));
    let disk = json!({"path": path.to_path_buf()});
    assert_eq!(host.ask("POST", "/v1/vms", &with_disk("a", &disk)).0, 200);
    let resize = |size: u64| json!({"disk": "vda", "size": size}).to_string();
    let length = || std::fs::metadata(&path).unwrap().len();
    for grown in [2 << 20, 3 << 20] {
        let (status, body) = host.ask("POST", "/v1/vms/a/resize-disk", &resize(grown));
        assert_eq!(status, 200, "{body}");
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), json!({"disk": "vda", "size": grown}));
        assert_eq!(length(), grown);
        let error = host.refused(422, "POST", "/v1/vms/a/resize-disk", &resize(1 << 20));
        assert!(error.contains("disk vda of VM a: it has") && error.contains("cannot shrink"), "{error}");
        assert!(host.events().iter().any(|event| event.text.starts_with("disk vda has ")));
        // The next round finds it off.
        host.ask("POST", "/v1/vms/a/kill", "");
        wait_until("it is off", || Some(host.vm("a")).filter(|vm| vm.power == Power::Off));
    }
    host.refused(400, "POST", "/v1/vms/a/resize-disk", &json!({"disk": "vdb"}).to_string());
    host.refused(404, "POST", "/v1/vms/b/resize-disk", &resize(4 << 20));
}

/// A guest that has taken its VMM over writes the header of its image, which names its backing
/// file.
#[test]
fn an_image_that_names_another_file_at_its_next_start_is_refused_until_an_operator_takes_it() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::create_dir(at("images")).unwrap();
    for name in ["images/base1", "images/base2"] {
        File::create(at(name)).unwrap().set_len(1 << 20).unwrap();
    }
    let file = File::options().read(true).write(true).create_new(true).open(at("a.qcow2")).unwrap();
    let storage = plimsoll_image::FileStorage::new(file).unwrap();
    let format = Some(plimsoll_image::Format::Raw);
    let backing = plimsoll_image::Backing { name: "images/base1".to_owned(), format };
    plimsoll_image::create::create(&storage, 1 << 20, 65536, Some(&backing)).unwrap();
    let mut host = Host::new(512, &format!("image_directory = {:?}\n", at("images")));
    let disk = json!({"path": at("a.qcow2"), "format": "qcow2"});
    assert_eq!(host.ask("POST", "/v1/vms", &with_disk("a", &disk)).0, 200);
    let header = std::fs::read(at("a.qcow2")).unwrap();
    let number = header.windows(5).position(|bytes| bytes == b"base1").unwrap() + 4;
    storage.file().write_all_at(b"2", number as u64).unwrap();
    let off = |host: &Host| {
        host.ask("POST", "/v1/vms/a/kill", "");
        wait_until("it is off", || Some(host.vm("a")).filter(|vm| vm.power == Power::Off));
    };
    off(&host);
    let refused = |host: &Host| {
        let error = host.refused(422, "POST", "/v1/vms/a/start", "");
        assert!(error.contains("base2 (raw), and not") && error.contains("plimsoll disk resize"), "{error}");
    };
    refused(&host);
    host.kill_daemon();
    host.start();
    refused(&host);
    let found = json!({"disk": "vda"}).to_string();
    let (status, body) = host.ask("POST", "/v1/vms/a/resize-disk", &found);
    assert_eq!(
        (status, serde_json::from_str(&body).unwrap()),
        (200, json!({"disk": "vda", "size": 1 << 20}))
    );
    assert_eq!(host.ask("POST", "/v1/vms/a/start", "").0, 200);
    // From now on that is what counts.
    storage.file().write_all_at(b"1", number as u64).unwrap();
    off(&host);
    assert!(host.refused(422, "POST", "/v1/vms/a/start", "").contains("base1 (raw), and not"));
}
