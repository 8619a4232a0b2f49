//! `plimsoll image`: what it makes of files, and what it leaves of them when it fails.

#![expect(clippy::unwrap_used, reason = "a test states what must hold by unwrapping")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
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
fn an_interruption_leaves_no_part_of_an_image() {
    let place = Place::new();
    fs::write(place.path().join("a.raw"), vec![1; 64 << 20]).unwrap();
    let mut command = Command::new("env");
    // Not as it is for the tests, which a shell's & may have started.
    command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_plimsoll"), "image", "convert"]);
    let mut child = command.args(["a.raw", "b.qcow2"]).current_dir(place.path()).spawn().unwrap();
    let parts = || place.files().into_iter().filter(|name| name.starts_with('.')).collect::<Vec<_>>();
    while child.try_wait().unwrap().is_none() && parts().is_empty() {
        std::thread::yield_now();
    }
    if child.try_wait().unwrap().is_none() {
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    }
    child.wait().unwrap();
    assert_eq!(parts(), [""; 0]);
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
        ("convert b.qcow2 c.raw", 1, "damaged"),
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
