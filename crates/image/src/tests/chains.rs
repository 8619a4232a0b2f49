//! Backing files: where they may lie.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::*;
use crate::chain;
use crate::storage::FileStorage;

fn overlay(path: &Path, name: &str, format: Option<Format>) -> PathBuf {
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    let backing = Backing { name: name.to_owned(), format };
    create(&FileStorage::new(file).unwrap(), SIZE, CLUSTER, Some(&backing)).unwrap();
    path.to_owned()
}

fn refused(path: &Path, directory: &Path) -> String {
    let links = chain::open(path, Format::Qcow2, true, directory);
    links.map_or_else(|error| format!("{error}: {}", error.source), |links| format!("{} files", links.len()))
}

#[test]
fn backing_files_lie_below_one_directory() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for inner in ["images", "images/deep", "vms"] {
        fs::create_dir(at(inner)).unwrap();
    }
    fs::write(at("images/base.raw"), vec![7; 4096]).unwrap();
    fs::write(at("secret"), vec![9; 4096]).unwrap();
    std::os::unix::fs::symlink(at("secret"), at("images/link")).unwrap();
    std::os::unix::fs::symlink(at("images/deep"), at("images/way")).unwrap();
    fs::write(at("images/deep/base.raw"), vec![8; 4096]).unwrap();
    let images = at("images");
    let raw = Some(Format::Raw);
    for (number, (name, format, part)) in [
        ("../images/base.raw", raw, "2 files"),
        ("../images/deep/../base.raw", raw, "2 files"),
        ("../images/way/base.raw", raw, "2 files"),
        (at("images/base.raw").to_str().unwrap(), raw, "2 files"),
        ("../images/base.raw", None, "does not state its format"),
        ("../images/base.raw", Some(Format::Qcow2), "no qcow2 image"),
        ("../secret", raw, "does not lie below"),
        ("/etc/passwd", raw, "does not lie below"),
        ("../images/link", raw, "does not lie below"),
        ("../images/../secret", raw, "does not lie below"),
        ("../images/deep", raw, "neither a file"),
        ("../images/..", raw, "does not lie below"),
        ("../images/absent", raw, "input or output"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = overlay(&at(&format!("vms/{number}")), name, format);
        let refused = refused(&path, &images);
        assert!(refused.contains(part), "{name} {format:?}: {part}: {refused}");
    }
}

#[test]
fn an_image_is_what_its_files_make_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("base.raw"), vec![7; 8192]).unwrap();
    let path = overlay(&at("middle"), "base.raw", Some(Format::Raw));
    let middle = chain::open(&path, Format::Qcow2, true, directory.path()).unwrap();
    let image = |links: Vec<chain::Link>, writable| {
        let files: Vec<_> = links.into_iter().map(|link| (link.format(), link.file)).collect();
        chain::image(files.into_iter().map(|(format, file)| (file, format)), writable).unwrap()
    };
    let middle = image(middle, true);
    middle.write(&[8; 512], 512).unwrap();
    middle.flush().unwrap();
    let path = overlay(&at("top"), "middle", Some(Format::Qcow2));
    let top = chain::open(&path, Format::Qcow2, true, directory.path()).unwrap();
    assert_eq!(top.iter().map(|link| link.size().unwrap()).collect::<Vec<_>>(), [SIZE, SIZE, 8192]);
    let top = image(top, true);
    top.write(&[9; 512], 1024).unwrap();
    let mut read = vec![1; 16384];
    top.read(&mut read, 0).unwrap();
    let expected: Vec<u8> =
        [7, 8, 9].into_iter().flat_map(|byte| [byte; 512]).chain([7; 8192 - 1536]).collect();
    assert!(read[..8192] == expected && read[8192..].iter().all(|byte| *byte == 0));
    assert!(
        image(chain::open(&path, Format::Qcow2, false, directory.path()).unwrap(), false)
            .write(&[0; 512], 0)
            .is_err()
    );
}

#[test]
fn a_chain_has_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = overlay(&directory.path().join("loop"), "loop", Some(Format::Qcow2));
    assert!(refused(&path, directory.path()).contains("too many"));
}
