//! Whole disks, made by the programs and crates that people make them with.

mod damage;
mod fat;
mod image;
mod sfdisk;

use std::rc::Rc;

use image::{Image, Tree, ext, fat, with_log};

use super::*;
use crate::find::find_within;

const UUID: &str = "11111111-2222-3333-4444-555555555555";
const DEBIAN: &str = include_str!("../grub/configs/debian.cfg");
const MIB: usize = 1 << 20;

/// A kernel's worth of bytes that differ everywhere.
fn kernel() -> Vec<u8> {
    (0..700_001u32).flat_map(u32::to_le_bytes).collect()
}

/// What Debian's root file system has.
fn debian() -> Tree {
    Tree::default()
        .with("boot/grub/grub.cfg", DEBIAN)
        .with("boot/vmlinuz-6.1.0-18-cloud-amd64", kernel())
        .with("boot/initrd.img-6.1.0-18-cloud-amd64", vec![7; 100_003])
        .with_link("vmlinuz", "boot/vmlinuz-6.1.0-18-cloud-amd64")
}

fn stub() -> String {
    format!("search.fs_uuid {UUID} root \nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n")
}

fn read(file: &mut File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len()).unwrap()];
    // Pieces of a length that divides nothing.
    let mut at = 0;
    for piece in bytes.chunks_mut(77_777) {
        file.read_exact_at(piece, at).unwrap();
        at += piece.len() as u64;
    }
    bytes
}

fn error(image: &Image) -> String {
    let error = image.find().unwrap_err().to_string();
    assert!(!error.contains('\n') && error.len() <= 900, "{error}");
    error
}

#[test]
fn a_debian_cloud_image_boots_what_its_grub_would() {
    let root = ext("ext4", 16 * MIB, UUID, 4096, &debian());
    let esp = fat(4 * MIB, 0x1234_abcd, &Tree::default().with("EFI/debian/grub.cfg", stub()));
    let image = Image::gpt(&[(1, &root, false), (14, &vec![0; 2 * MIB], false), (15, &esp, true)]);
    let mut boot = image.find().unwrap();
    assert_eq!(boot.entry, "Debian GNU/Linux");
    assert_eq!(boot.configuration, "/EFI/debian/grub.cfg on partition 15");
    assert_eq!(boot.kernel.name(), "/boot/vmlinuz-6.1.0-18-cloud-amd64 on partition 1");
    assert!(
        boot.cmdline
            .starts_with("BOOT_IMAGE=/boot/vmlinuz-6.1.0-18-cloud-amd64 root=PARTUUID=aa-bb ro console=tty0")
    );
    assert!(read(&mut boot.kernel) == kernel());
    assert!(read(boot.initrd.as_mut().unwrap()) == vec![7; 100_003]);
    let mut back = [0; 100];
    boot.kernel.read_exact_at(&mut back, 4_000).unwrap();
    assert!(back == kernel()[4_000..4_100], "backwards");
    assert!(boot.kernel.read_exact_at(&mut back, boot.kernel.len() - 99).is_err());
    // Without the stub's partition the disk boots the same.
    let image = Image::gpt(&[(1, &root, false)]);
    assert_eq!(image.find().unwrap().configuration, "/boot/grub/grub.cfg on partition 1");
}

#[test]
fn a_separate_boot_partition_and_logical_ones_are_found() {
    let boot = Tree::default()
        .with("grub/grub.cfg", DEBIAN.replace("/boot/vmlinuz", "/vmlinuz").replace("/boot/initrd", "/initrd"))
        .with("vmlinuz-6.1.0-18-cloud-amd64", kernel())
        .with("initrd.img-6.1.0-18-cloud-amd64", "i");
    let boot = ext("ext2", 8 * MIB, UUID, 1024, &boot);
    let root = ext(
        "ext3",
        8 * MIB,
        "99999999-2222-3333-4444-555555555555",
        4096,
        &Tree::default().with("etc/hostname", "x"),
    );
    let image = Image::mbr(&[(1, &root)], &[&vec![0; MIB], &boot]);
    let mut boot = image.find().unwrap();
    assert_eq!(boot.configuration, "/grub/grub.cfg on partition 6");
    assert!(read(&mut boot.kernel) == kernel());
}

#[test]
fn a_disk_without_a_table_is_one_file_system() {
    let config = "default l0\nlabel l0\n menu label Alpine\n linux vmlinuz\n initrd a,/boot/b\n append root=/dev/vda ro\n";
    let tree = Tree::default()
        .with("boot/extlinux/extlinux.conf", config)
        .with("boot/extlinux/vmlinuz", kernel())
        .with("boot/extlinux/a", "first")
        .with("boot/b", "second");
    let image = Image::whole(ext("ext4", 8 * MIB, UUID, 4096, &tree));
    let mut boot = image.find().unwrap();
    assert_eq!((boot.entry.as_str(), boot.cmdline.as_str()), ("Alpine", "root=/dev/vda ro"));
    assert_eq!(boot.configuration, "/boot/extlinux/extlinux.conf on the disk");
    assert_eq!(
        read(boot.initrd.as_mut().unwrap()),
        b"first\0\0\0second",
        "GRUB aligns initrds to four bytes"
    );
}

#[test]
fn a_file_system_that_was_not_unmounted_is_read() {
    // Ext3's journal is passed over; ext4's is damaged here, and so passed over, too.
    for kind in ["ext3", "ext4"] {
        let mut image = ext(kind, 16 * MIB, UUID, 1024, &debian());
        image[1024 + 0x60] |= 4;
        if kind == "ext4" {
            let sum = !crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(&image[1024..2044]);
            image[2044..2048].copy_from_slice(&sum.to_le_bytes());
            let journal = image.windows(4).position(|bytes| bytes == [0xc0, 0x3b, 0x39, 0x98]).unwrap();
            image[journal + 12] ^= 1;
        }
        let mut boot = Image::whole(image).find().unwrap();
        assert!(read(&mut boot.kernel) == kernel(), "{kind}");
    }
}

/// A VM that was killed while its guest wrote: a large file system has a log of up to a GiB.
#[test]
fn a_journal_that_is_too_long_is_passed_over_and_leaves_enough_for_other_volumes() {
    let root = with_log(&ext("ext4", 16 * MIB, UUID, 1024, &debian()));
    assert_eq!(u32::from_le_bytes(root[1024 + 0x60..][..4].try_into().unwrap()) & 4, 4, "it has a log");
    let other = Tree::default().with("etc/hostname", "x");
    let other = with_log(&ext("ext4", 16 * MIB, "99999999-2222-3333-4444-555555555555", 1024, &other));
    let image = Image::gpt(&[(1, &other, false), (2, &other, false), (3, &root, false)]);
    let (length, image) = (image.0.len() as u64, Rc::new(image.0));
    // Logs are read in pieces of 32 KiB: whatever is left when one is too many.
    for allowance in (400_000..432_768).step_by(64).chain([64 << 20]) {
        let mut boot = find_within(Box::new(Rc::clone(&image)), length, allowance).unwrap();
        assert_eq!(boot.configuration, "/boot/grub/grub.cfg on partition 3");
        boot.kernel.read_exact_at(&mut [0; 4096], 0).unwrap();
    }
}

#[test]
fn systemd_boots_entries_on_a_fat_partition_are_booted() {
    let entry = |version: &str| {
        format!(
            "title Arch\nversion {version}\nlinux /{version}/linux\ninitrd /{version}/initrd\noptions root=LABEL=x v={version}\n"
        )
    };
    let tree = Tree::default()
        .with("loader/loader.conf", "timeout 3\ndefault *-6.8*\n")
        .with("loader/entries/arch-6.9.conf", entry("6.9"))
        .with("loader/entries/arch-6.8.1.conf", entry("6.8.1"))
        .with("6.8.1/linux", kernel())
        .with("6.8.1/initrd", "i");
    let esp = fat(16 * MIB, 1, &tree);
    let mut boot = Image::gpt(&[(1, &esp, true)]).find().unwrap();
    assert_eq!((boot.entry.as_str(), boot.cmdline.as_str()), ("Arch", "root=LABEL=x v=6.8.1"));
    assert!(read(&mut boot.kernel) == kernel());
}

#[test]
fn errors_say_what_was_found_and_what_was_not() {
    assert_eq!(
        error(&Image::whole(vec![0; MIB])),
        "the disk cannot be booted: no file system on it can be read (found: it has no partition table, the disk no \
         known file system)"
    );
    let mut xfs = vec![0; 2 * MIB];
    xfs[..4].copy_from_slice(b"XFSB");
    let empty = ext("ext4", 4 * MIB, UUID, 4096, &Tree::default().with("x", "y"));
    let text = error(&Image::gpt(&[(1, &xfs, false), (2, &empty, false)]));
    assert!(text.contains("partition 1 xfs (cannot be read"), "{text}");
    assert!(text.contains("partition 2 ext4") && text.contains("no configuration of GRUB"), "{text}");
    let mut tree = debian();
    tree.remove("boot/initrd.img-6.1.0-18-cloud-amd64");
    let root = ext("ext4", 16 * MIB, UUID, 4096, &tree);
    let esp = fat(4 * MIB, 1, &Tree::default().with("EFI/debian/grub.cfg", stub().replace("1111", "9999")));
    let text = error(&Image::gpt(&[(1, &root, false), (15, &esp, true)]));
    let wanted = "/boot/grub/grub.cfg on partition 1: /boot/initrd.img-6.1.0-18-cloud-amd64 on partition 1 is not there";
    assert!(text.contains(wanted), "{text}");
    assert!(text.contains("/EFI/debian/grub.cfg on partition 15: its menu has no entry"), "{text}");
    let config = "default a\nlabel a\n linux /k\n append x\u{1b}[2J\n";
    let tree = Tree::default().with("extlinux.conf", config).with("k", "k");
    let text = error(&Image::whole(ext("ext4", 4 * MIB, UUID, 1024, &tree)));
    assert!(text.contains("its command line contains '\\u{1b}'"), "{text}");
}
