//! `plimsoll image`: what it makes of files, and what it leaves of them when it fails.

#![expect(clippy::unwrap_used, reason = "a test states what must hold by unwrapping")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use serde_json::Value;
use tempfile::TempDir;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs `plimsoll image LINE` here: its exit status, its output, its errors.
    fn image(&self, line: &str) -> (i32, String, String) {
        let done = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
            .arg("image")
            .args(line.split(' '))
            .current_dir(self.path())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
    }

    fn done(&self, line: &str) -> String {
        let (code, out, err) = self.image(line);
        assert_eq!((code, err.as_str()), (0, ""), "{line}");
        out
    }

    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.path()).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// A disk of 1 MiB and a sector, with some content.
fn raw(place: &Path, name: &str) -> Vec<u8> {
    let mut content = vec![0; (1 << 20) + 512];
    for at in [0, 70_000, 700_000, (1 << 20) + 511] {
        content[at] = 7;
    }
    fs::write(place.join(name), &content).unwrap();
    content
}

#[test]
fn a_disk_keeps_its_content_through_all_formats() {
    let place = Place::new();
    let content = raw(place.path(), "a.raw");
    place.done("convert a.raw b.qcow2");
    place.done("overlay b.qcow2 c.qcow2");
    place.done("convert c.qcow2 d.raw");
    assert!(fs::read(place.path().join("d.raw")).unwrap() == content);
    place.done("convert d.raw e --to qcow2");
    place.done("convert e f --from qcow2");
    assert!(fs::read(place.path().join("f")).unwrap() == content);
    // What is zero takes no space.
    let blocks =
        |name: &str| std::os::unix::fs::MetadataExt::blocks(&fs::metadata(place.path().join(name)).unwrap());
    assert!(blocks("d.raw") < 1024 && blocks("b.qcow2") < 2048);
}

#[test]
fn facts_are_told_of_all_files_of_an_image() {
    let place = Place::new();
    place.done("create base.raw 1MiB");
    place.done("overlay base.raw a.qcow2");
    let facts: Value = serde_json::from_str(&place.done("info a.qcow2 --json")).unwrap();
    assert_eq!(facts[0]["format"], "qcow2");
    assert_eq!(facts[0]["size"], 1 << 20);
    assert_eq!(facts[0]["cluster"], 65536);
    assert_eq!(facts[0]["backing_format"], "raw");
    assert_eq!((&facts[1]["format"], &facts[1]["size"]), (&Value::from("raw"), &Value::from(1 << 20)));
    assert!(facts[1].get("cluster").is_none() && facts.as_array().unwrap().len() == 2);
    let text = place.done("info a.qcow2");
    assert_eq!(text.lines().count(), 2);
    assert!(text.starts_with("a.qcow2: qcow2, disk 1MiB, "), "{text}");
}

#[test]
fn a_failure_leaves_no_file() {
    let place = Place::new();
    let content = raw(place.path(), "a.raw");
    fs::write(place.path().join("short.raw"), [1; 100]).unwrap();
    place.done("convert a.raw b.qcow2");
    // A mapping into a cluster, which is found in the middle of the copy.
    let damaged = fs::File::options().read(true).write(true).open(place.path().join("b.qcow2")).unwrap();
    let table = (0..20_u64).map(|cluster| cluster * 65536).find(|at| {
        let mut entry = [0; 8];
        damaged.read_at(&mut entry, *at).unwrap();
        *at > 65536 * 3 && entry[0] == 0x80
    });
    damaged.write_all_at(&[0x80, 0, 0, 0, 0, 0, 2, 0], table.unwrap() + 8).unwrap();
    let before = place.files();
    for (line, code, part) in [
        ("convert b.qcow2 c.raw", 5, "b.qcow2: reading at byte 65536: the image's metadata is damaged"),
        ("convert short.raw c.raw", 5, "no multiple of 512"),
        ("convert a.raw c.raw --from qcow2", 5, "no qcow2 image"),
        ("convert absent c.raw", 5, "absent"),
        ("convert a.raw b.qcow2", 4, "already"),
        ("create b.qcow2 1MiB", 4, "already"),
        ("create c.qcow2 100", 5, "multiple of 512"),
        ("create c.raw 0", 2, "multiple of 512"),
        ("create c.qcow2 1MiB --cluster 5000", 5, "power of two"),
        ("create absent/c.raw 1MiB", 5, "absent"),
        ("overlay absent c.qcow2", 5, "absent"),
        ("info a.raw --format qcow2", 5, "no qcow2 image"),
        ("info a.raw --format vmdk", 2, "no format"),
    ] {
        let (status, out, err) = place.image(line);
        assert_eq!((status, out.as_str()), (code, ""), "{line}: {err}");
        assert!(err.contains(part) && err.lines().count() == 1, "{line}: {err}");
        assert_eq!(place.files(), before, "{line}");
    }
    assert!(fs::read(place.path().join("a.raw")).unwrap() == content);
}

#[test]
fn an_image_that_somebody_writes_is_refused_with_who_that_is() {
    let place = Place::new();
    raw(place.path(), "base.raw");
    place.done("overlay base.raw a.qcow2");
    // As a VMM holds its disk.
    let held = fs::File::options().read(true).write(true).open(place.path().join("base.raw")).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    for line in ["convert base.raw b.qcow2", "convert a.qcow2 b.raw", "overlay base.raw b.qcow2"] {
        let (code, _, err) = place.image(line);
        let who = format!("(process {})", std::process::id());
        assert_eq!(code, 5, "{line}: {err}");
        assert!(err.contains("base.raw: it is in use by ") && err.contains(&who), "{line}: {err}");
        assert_eq!(place.files(), ["a.qcow2", "base.raw"], "{line}");
    }
    // Not by closing it: a program that another test starts may hold a copy for a moment.
    flock(&held, FlockOperation::Unlock).unwrap();
    place.done("convert a.qcow2 b.raw");
}

#[test]
fn a_copy_that_is_killed_leaves_no_file() {
    let place = Place(tempfile::tempdir_in("/var/tmp").unwrap());
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Err(error) = rustix::fs::open(place.path(), flags, Mode::RUSR) {
        eprintln!("SKIPPED: /var/tmp has no files without a name: {error}");
        return;
    }
    // Hours of zeros.
    fs::File::create(place.path().join("a.raw")).unwrap().set_len(1 << 40).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
        .args(["image", "convert", "a.raw", "b.qcow2"])
        .current_dir(place.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let writes = || {
        let links = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().flatten();
        let mut targets = links.filter_map(|link| fs::read_link(link.path()).ok());
        targets.any(|target| target.starts_with(place.path()) && !target.ends_with("a.raw"))
    };
    let begin = Instant::now();
    while !writes() {
        assert!(begin.elapsed() < Duration::from_secs(60), "it does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(place.files(), ["a.raw"]);
}

#[test]
fn a_backing_file_elsewhere_needs_the_operators_word() {
    let place = Place::new();
    for directory in ["images", "vms"] {
        fs::create_dir(place.path().join(directory)).unwrap();
    }
    raw(&place.path().join("images"), "base.raw");
    let (code, _, err) = place.image("overlay images/base.raw vms/a.qcow2");
    assert_eq!((code, err.as_str()), (0, ""));
    let (code, _, err) = place.image("convert vms/a.qcow2 b.raw");
    assert_eq!(code, 5);
    assert!(err.contains("base.raw") && err.contains("does not lie below vms"), "{err}");
    place.done("convert vms/a.qcow2 b.raw --backing-dir images");
}
