//! VMs of images: what is made of files, what the daemon is asked, and what a failure leaves.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::fake::{Done, Fake, error, plimsoll, vm};

/// A host with an image in its directory, and one elsewhere.
struct Host {
    fake: Fake,
}

impl Host {
    fn new() -> Self {
        let fake = Fake::new();
        let host = json!({
            "budget": 1, "granted": 0, "overhead": 0, "free": 1, "reserved": 0, "held": 0, "ballooned": 0, "kernel": 0,
            "peak_ledger": 0, "peak_kernel": 0, "state": "high", "high_threshold": 1, "running": 1, "version": "0.1.0",
            "image_directory": fake.path("images"), "disk_directory": fake.path("disks")
        });
        fake.on("GET /v1/host", 200, &host).on("POST /v1/vms", 201, &vm("web1", "on"));
        fs::create_dir(fake.path("images")).unwrap();
        fs::create_dir(fake.path("home")).unwrap();
        for image in ["images/kept.qcow2", "home/debian-12.qcow2"] {
            let path = fake.path(image);
            let made = plimsoll(&["image", "create", path.to_str().unwrap(), "8MiB"]).output().unwrap();
            assert!(made.status.success());
        }
        fs::write(fake.path("home/key.pub"), "ssh-ed25519 AAAA me@here\n").unwrap();
        Self { fake }
    }

    /// Runs the command in the directory `home`.
    fn run(&self, line: &str) -> Done {
        let args: Vec<&str> = line.split(' ').collect();
        Done::new(&self.fake.command(&args).current_dir(self.fake.path("home")).output().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.fake.path(name)
    }

    /// The definitions that the daemon got.
    fn sent(&self) -> Vec<Value> {
        let posts = self.fake.requests().into_iter().filter(|(line, _)| line.starts_with("POST"));
        posts.map(|(_, body)| serde_json::from_str(&body).unwrap()).collect()
    }

    /// All files but the socket.
    fn files(&self) -> Vec<String> {
        let list = |name: &str| fs::read_dir(self.path(name)).into_iter().flatten().flatten();
        let names = ["images", "home", "disks"].into_iter().flat_map(|directory| {
            list(directory).map(move |entry| format!("{directory}/{}", entry.file_name().display()))
        });
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

/// What `plimsoll image info` tells of the files of an image.
fn info(disk: &Path, images: &Path) -> Value {
    let (disk, images) = (disk.to_str().unwrap(), images.to_str().unwrap());
    let told = plimsoll(&["image", "info", disk, "--backing-dir", images, "--json"]).output().unwrap();
    serde_json::from_slice(&told.stdout).unwrap()
}

const MADE: &str = "web1 runs (256MiB, 1 vCPU); see it with: plimsoll console web1\n";

#[test]
fn an_image_becomes_a_vm_with_a_disk_of_its_own() {
    let host = Host::new();
    host.run("run --image debian-12.qcow2 --ssh-key key.pub --tap tap0 --pool prod").prints(MADE);
    let disk = host.path("disks/debian-12.qcow2");
    let expected = json!({
        "name": "debian-12", "size": 1 << 30, "bus": "pci", "pool": "prod",
        "boot": {"from": "disk", "append": "console=ttyS0"},
        "disk": [{"path": disk, "format": "qcow2"}],
        "net": [{"tap": "tap0"}],
        "cloud_init": {"ssh_authorized_keys": ["ssh-ed25519 AAAA me@here"]}
    });
    assert_eq!(host.sent(), [expected]);
    let info = info(&disk, &host.path("images"));
    assert_eq!((&info[0]["size"], &info[1]["format"]), (&json!(8 << 20), &json!("qcow2")));
    assert_eq!(info[1]["path"], json!(host.path("images/debian-12.qcow2")), "a copy, which no user changes");
    assert!(fs::metadata(&disk).unwrap().mode() & 0o077 == 0, "what is on it is the guest's");
    assert!(fs::metadata(host.path("images/debian-12.qcow2")).unwrap().mode() & 0o222 == 0);
}

#[test]
fn an_image_is_kept_once_for_all_vms() {
    let host = Host::new();
    let done = host.run("run --image debian-12.qcow2 --name a --vcpus 2 --size 512MiB --disk-size 1GiB");
    assert!(done.code == 0 && done.err.starts_with("note: without --ssh-key and --user-data"), "{done:?}");
    let inode = || fs::metadata(host.path("images/debian-12.qcow2")).unwrap().ino();
    let first = inode();
    assert_eq!(host.run("run --image debian-12.qcow2 --name b --user-data key.pub").err, "");
    // By its name alone, and by its path in the daemon's directory.
    let path = host.path("images/debian-12.qcow2").display().to_string();
    for (image, name) in [("kept.qcow2", "c"), (path.as_str(), "d")] {
        assert_eq!(host.run(&format!("run --image {image} --name {name} --disk own-{name}.qcow2")).code, 0);
    }
    assert_eq!(inode(), first);
    let sent = host.sent();
    assert_eq!((&sent[0]["vcpus"], &sent[0]["size"]), (&json!(2), &json!(512 << 20)));
    assert_eq!(sent[1]["cloud_init"], json!({"user_data": host.path("home/key.pub")}));
    assert_eq!(sent[3]["disk"][0]["path"], json!(host.path("home/own-d.qcow2")));
    assert_eq!(info(&host.path("disks/a.qcow2"), &host.path("images"))[0]["size"], json!(1 << 30));
    let files = [
        "disks/a.qcow2",
        "disks/b.qcow2",
        "home/debian-12.qcow2",
        "home/key.pub",
        "home/own-c.qcow2",
        "home/own-d.qcow2",
    ];
    assert_eq!(host.files(), [&files[..], &["images/debian-12.qcow2", "images/kept.qcow2"]].concat());
    // Another image of that name is not taken for this one.
    fs::write(host.path("home/debian-12.raw"), [7; 512]).unwrap();
    fs::rename(host.path("home/debian-12.raw"), host.path("home/kept.qcow2")).unwrap();
    let done = host.run("run --image kept.qcow2 --format raw --name e");
    let text =
        format!("{}: there is another image of that name already", host.path("images/kept.qcow2").display());
    assert!(done.code == 4 && done.err.contains(&text), "{done:?}");
    assert!(!host.path("disks/e.qcow2").exists());
}

#[test]
fn what_cannot_be_made_is_told_and_leaves_nothing() {
    let host = Host::new();
    host.fake.on("GET /v1/vms/taken", 200, &vm("taken", "off"));
    fs::write(host.path("home/key"), "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
    fs::write(host.path("home/debian.img"), [0; 1024]).unwrap();
    fs::write(host.path("home/short.raw"), [0; 100]).unwrap();
    let overlay = "image overlay debian-12.qcow2 changed.qcow2";
    assert_eq!(host.run(overlay).code, 0);
    let before = host.files();
    for (line, code, part) in [
        ("run --image debian.img", 2, "state its format with --format"),
        ("run --image debian.img --format qcow2", 5, "no qcow2 image"),
        ("run --image short.raw", 5, "its 100 bytes are no multiple of 512"),
        ("run --image absent.qcow2", 5, "absent.qcow2: No such file"),
        ("run --image debian-12.qcow2 --ssh-key key", 2, "private key"),
        ("run --image debian-12.qcow2 --ssh-key absent.pub", 5, "absent.pub"),
        ("run --image debian-12.qcow2 --user-data absent", 5, "absent"),
        ("run --image debian-12.qcow2 --size 33MiB", 2, "size 33MiB"),
        ("run --image debian-12.qcow2 --vcpus 0", 2, "vcpus 0"),
        ("run --image debian-12.qcow2 --disk-size 1MiB", 2, "the image has 8MiB"),
        ("run --image debian-12.qcow2 --name taken", 4, "plimsoll start taken"),
        ("run --image debian-12.qcow2 --disk debian-12.qcow2", 4, "there is a disk already"),
        ("run --image changed.qcow2", 5, "it has a backing file"),
    ] {
        let done = host.run(line);
        assert_eq!((done.code, done.out.as_str()), (code, ""), "{line}: {done:?}");
        assert!(done.err.contains(part) && done.err.lines().count() == 1, "{line}: {done:?}");
        assert_eq!(host.files(), before, "{line}");
    }
    assert_eq!(host.sent(), Vec::<Value>::new());
    let url = ["run", "--image", "debian-12.qcow2", "--url", "http://127.0.0.1:1"];
    let done = Done::new(&plimsoll(&url).current_dir(host.path("home")).output().unwrap());
    assert!(done.code == 2 && done.err.contains("on the daemon's unix socket"), "{done:?}");
}

#[test]
fn a_disk_goes_with_a_vm_that_is_refused_and_stays_with_one_that_has_it() {
    let host = Host::new();
    host.fake.on("POST /v1/vms?start=false", 422, &error("no memory is left"));
    let create = "create --image kept.qcow2 --name web1 --ssh-key key.pub";
    host.run(create).fails(5, "no memory is left");
    assert!(!host.path("disks/web1.qcow2").exists());
    // The daemon has defined it, and says no all the same.
    let disk = host.path("disks/web1.qcow2");
    let definition = json!({"name": "web1", "size": 256 << 20, "boot": {"model": true}, "disk": [{"path": disk, "format": "qcow2"}]});
    host.fake.on("GET /v1/vms/web1/definition", 200, &definition);
    host.run(create).fails(5, &format!("no memory is left; web1 has its disk {}", disk.display()));
    assert!(disk.exists());
    let done = host.run(create);
    assert!(done.code == 4 && done.err.contains("there is a disk already"), "{done:?}");
}

#[test]
fn a_vm_of_an_image_is_created_and_its_definition_is_printed() {
    let host = Host::new();
    let before = host.files();
    let done = host.run("run --image debian-12.qcow2 --name web1 --ssh-key key.pub --print");
    assert!(done.code == 0 && done.err.is_empty(), "{done:?}");
    assert_eq!((host.sent().len(), host.files()), (0, before));
    fs::write(host.path("home/web1.toml"), &done.out).unwrap();
    host.fake.on("POST /v1/vms?start=false", 200, &vm("web1", "off"));
    for line in ["create web1.toml", "create --image debian-12.qcow2 --name web1 --ssh-key key.pub"] {
        host.run(line).prints("web1 is defined; start it with: plimsoll start web1\n");
    }
    let sent = host.sent();
    assert_eq!(sent[0], sent[1], "what is printed is what is made");
    let json = host.run("create --image kept.qcow2 --print --json");
    assert_eq!(serde_json::from_str::<Value>(&json.out).unwrap()["name"], "kept");
}
