use super::memory::Memory;
use super::*;

fn volume() -> Volume {
    Memory::default()
        .with("/boot/vmlinuz-6", "kernel")
        .with("/etc/x", "")
        .with_link("/vmlinuz", "boot/vmlinuz-6")
        .with_link("/boot/vmlinuz", "vmlinuz-6")
        .with_link("/boot/boot", ".")
        .with_link("/etc/up", "../boot/./boot//boot/vmlinuz")
        .with_link("/absolute", "/etc/up")
        .with_link("/loop", "pool")
        .with_link("/pool", "/loop")
        .with_link("/out", "../../../boot/vmlinuz-6")
        .with_link("/slow", "slow/slow")
        .volume()
}

#[test]
fn links_lead_where_linux_would_go() {
    let volume = volume();
    for path in
        ["/boot/vmlinuz-6", "boot/../vmlinuz", "/etc/up", "/absolute", "/out", "/boot/boot/boot/vmlinuz"]
    {
        assert_eq!(volume.resolve(path).unwrap(), ("/boot/vmlinuz-6".to_owned(), Node::File(6)), "{path}");
    }
    assert_eq!(volume.text("/absolute").unwrap(), "kernel");
    assert_eq!(volume.list("/boot/boot").unwrap(), ["boot", "vmlinuz", "vmlinuz-6"]);
    assert_eq!(volume.resolve("/").unwrap(), ("/".to_owned(), Node::Directory));
}

#[test]
fn loops_and_files_in_the_way_are_errors() {
    let volume = volume();
    for path in ["/loop", "/slow"] {
        assert!(volume.resolve(path).unwrap_err().to_string().contains("too many symbolic links"), "{path}");
    }
    for path in ["/boot/vmlinuz-6/x", "/none", "/boot/vmlinuz-6/.."] {
        assert!(volume.resolve(path).is_err(), "{path}");
    }
    assert!(volume.resolve(&"/boot/boot".repeat(1000)).is_err());
    assert!(volume.list("/none").unwrap().is_empty());
    assert_eq!(volume.file("/boot"), None);
}
