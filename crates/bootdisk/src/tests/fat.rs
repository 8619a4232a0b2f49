use std::io::Write;
use std::rc::Rc;

use super::image::{Image, Tree, fat};
use super::{MIB, kernel, read};
use crate::disk::{Disk, Window};
use crate::partition::{Partition, Scheme};
use crate::volume::{Node, Recognized, Volume, look};

fn open(bytes: Vec<u8>) -> Volume {
    let length = bytes.len() as u64;
    let disk = Rc::new(Disk::new(Box::new(Image(bytes)), length, 1 << 30));
    let whole = Partition { number: 0, start: 0, len: length, efi: false };
    match look(Window::new(&disk, 0, length), Scheme::Whole, &whole) {
        Recognized::FileSystem(volume) => volume,
        Recognized::Other(what) => panic!("{what}"),
    }
}

/// More names than a cluster of a directory has room for.
fn many() -> Tree {
    (0..200).fold(Tree::default(), |tree, n| {
        tree.with(&format!("EFI/A vendor with a long name/file number {n}.conf"), format!("{n}"))
    })
}

#[test]
fn all_widths_are_read() {
    for length in [4 * MIB, 32 * MIB, 80 * MIB] {
        let tree = many().with("KERNEL.IMG", kernel()).with("lower.txt", "x").with("Grüße", "ü");
        let volume = open(fat(length, 0x1234_abcd, &tree));
        assert_eq!(
            (volume.files.kind(), volume.files.uuid(), volume.files.label()),
            ("FAT", "1234-ABCD", "ESP")
        );
        assert_eq!(volume.list("/EFI").unwrap(), ["A vendor with a long name"]);
        let names = volume.list("/efi/a vendor WITH a long name").unwrap();
        assert!(names.len() == 200 && names.contains(&"file number 137.conf".to_owned()), "{names:?}");
        assert_eq!(volume.text("/EFI/A vendor with a long name/FILE NUMBER 137.CONF").unwrap(), "137");
        assert_eq!(volume.file("/kernel.img"), Some(kernel().len() as u64));
        assert_eq!(volume.text("/grüße").unwrap(), "ü");
        assert_eq!(volume.resolve("/EFI/..").unwrap().1, Node::Directory);
        assert!(volume.resolve("/KERNEL.IMG/x").is_err());
        let (mut content, length) = volume.open("/KERNEL.IMG").unwrap();
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        content.read(&mut bytes, 0).unwrap();
        assert!(bytes == kernel(), "{length}");
        assert!(content.read(&mut [0; 2], length - 1).is_err());
    }
}

#[test]
fn a_file_in_pieces_is_put_together() {
    let mut image = std::io::Cursor::new(fat(32 * MIB, 1, &Tree::default()));
    let files = fatfs::FileSystem::new(&mut image, fatfs::FsOptions::new()).unwrap();
    for (one, other) in kernel().chunks(5000).zip(kernel().chunks(5000).rev()) {
        for (name, piece) in [("one", one), ("other", other)] {
            let mut file = files.root_dir().create_file(name).unwrap();
            std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
            file.write_all(piece).unwrap();
        }
    }
    drop(files);
    let volume = open(image.into_inner());
    let (mut content, length) = volume.open("/one").unwrap();
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    for (index, piece) in bytes.chunks_mut(9999).enumerate() {
        content.read(piece, index as u64 * 9999).unwrap();
    }
    assert!(bytes == kernel());
}

#[test]
fn chains_that_lead_back_or_nowhere_are_errors() {
    let tree = Tree::default().with("loader/entries/a.conf", "linux /kernel\n").with("kernel", kernel());
    let image = fat(32 * MIB, 1, &tree);
    assert!(read(&mut Image(image.clone()).find().unwrap().kernel) == kernel());
    let table = usize::from(image[14]) * 512;
    for value in [2u16, 3, 0, 1, 0xfff7, 0xffef] {
        let mut broken = image.clone();
        for entry in broken[table + 4..table + 20_000].chunks_exact_mut(2) {
            entry.copy_from_slice(&value.to_le_bytes());
        }
        // Wherever it leads, it ends.
        if let Ok(mut boot) = Image(broken).find() {
            boot.kernel.read_exact_at(&mut [0; 5000], 0).ok();
        }
    }
}
