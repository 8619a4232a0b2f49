//! Images as VMs may use them.
//!
//! An image names its backing files itself, and says how large its disk is. A VM that writes an
//! image may have written that, too, in case its guest has broken into its VMM. So what an image
//! said when a VM was first started with it is kept in the VM's record, and a start on which it
//! says something else is refused until an operator has taken the image as it is.

use std::fs;
use std::path::PathBuf;

use anyhow::bail;
use plimsoll_protocol::definition::{Disk, ImageFormat, VmDefinition};
use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

/// What an operator does about an image that was refused.
const REMEDY: &str = "its guest may have written that: unless you have changed the image yourself, do not start it; \
                      plimsoll disk resize VM DISK, without a size, takes the image as it is";

/// What an image is to be, for one VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownImage {
    /// The path that the VM's definition has.
    pub(crate) path: PathBuf,
    /// The most bytes that its disk may have.
    pub(crate) size: Bytes,
    /// Its backing files: each is that of the one before it.
    pub(crate) backing: Vec<KnownFile>,
}

/// A backing file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownFile {
    pub(crate) path: PathBuf,
    pub(crate) format: ImageFormat,
}

impl KnownImage {
    /// Checks that the image may be used as it was found. One that has lost its backing files or
    /// became smaller harms its own guest at most.
    ///
    /// # Errors
    /// What has changed, and what to do.
    pub(crate) fn must_allow(&self, found: &Self, disk: &Disk) -> anyhow::Result<()> {
        if !found.backing.is_empty() && !are_same(&found.backing, &self.backing) {
            bail!(
                "its header names the backing files {}, and not {} as before: {REMEDY}",
                list(&found.backing),
                list(&self.backing)
            );
        }
        // Only what is written bounds the length of a file.
        if !disk.read_only && found.size > self.size {
            bail!(
                "its header says that its disk has {} bytes, and not {} as before: {REMEDY}",
                found.size.0,
                self.size.0
            );
        }
        Ok(())
    }
}

/// Whether two lists are of the same files. A file is the same one under another name of its
/// directory, as it has where base images were moved and a link leads from the old place.
fn are_same(found: &[KnownFile], known: &[KnownFile]) -> bool {
    let place = |file: &KnownFile| fs::canonicalize(&file.path).ok();
    let is_one = |(found, known): (&KnownFile, &KnownFile)| {
        found.format == known.format
            && (found.path == known.path || place(found).is_some_and(|at| Some(at) == place(known)))
    };
    found.len() == known.len() && found.iter().zip(known).all(is_one)
}

/// Adds to `known` those of the `found` images that were not used before. Returns whether there are
/// any.
pub(crate) fn remember(known: &mut Vec<KnownImage>, found: Vec<KnownImage>) -> bool {
    let before = known.len();
    let is_new = |image: &KnownImage| !known[..before].iter().any(|other| other.path == image.path);
    let new: Vec<KnownImage> = found.into_iter().filter(is_new).collect();
    known.extend(new);
    known.len() > before
}

/// Those of `images` that are disks of `definition`.
pub(crate) fn of(definition: &VmDefinition, images: &[KnownImage]) -> Vec<KnownImage> {
    let is_disk = |image: &&KnownImage| {
        let is_it = |disk: &Disk| disk.format == ImageFormat::Qcow2 && disk.path == image.path;
        definition.disks.iter().any(is_it)
    };
    images.iter().filter(is_disk).cloned().collect()
}

fn list(files: &[KnownFile]) -> String {
    let name = |file: &KnownFile| {
        let format = match file.format {
            ImageFormat::Raw => "raw",
            ImageFormat::Qcow2 => "qcow2",
        };
        format!("{} ({format})", file.path.display())
    };
    if files.is_empty() { "none".to_owned() } else { files.iter().map(name).collect::<Vec<_>>().join(", ") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn image(size: u64, backing: &[(&str, ImageFormat)]) -> KnownImage {
        let file = |(path, format): &(&str, ImageFormat)| KnownFile { path: path.into(), format: *format };
        KnownImage {
            path: "/a.qcow2".into(),
            size: Bytes::mib(size),
            backing: backing.iter().map(file).collect(),
        }
    }

    #[test]
    fn what_an_image_may_not_reach_by_its_header_is_refused() {
        let (raw, qcow2) = (ImageFormat::Raw, ImageFormat::Qcow2);
        let known = image(2, &[("/images/base", raw)]);
        let disk = Disk { format: qcow2, ..Disk::new("/a.qcow2") };
        let judge = |found: &KnownImage| known.must_allow(found, &disk).map_err(|why| why.to_string());
        for allowed in [known.clone(), image(1, &[("/images/base", raw)]), image(2, &[])] {
            judge(&allowed).unwrap();
        }
        for (found, part) in [
            (image(2, &[("/images/other", raw)]), "/images/other (raw), and not /images/base (raw)"),
            (image(2, &[("/images/base", qcow2)]), "/images/base (qcow2), and not"),
            (image(2, &[("/images/base", raw), ("/images/other", raw)]), "/images/other"),
            (image(3, &[("/images/base", raw)]), "has 3145728 bytes, and not 2097152"),
        ] {
            let why = judge(&found).unwrap_err();
            assert!(why.contains(part) && why.contains("plimsoll disk resize"), "{why}");
        }
        let alone = image(2, &[]).must_allow(&image(2, &[("/images/base", raw)]), &disk).unwrap_err();
        assert!(alone.to_string().contains("and not none"), "{alone}");
        let read_only = Disk { read_only: true, ..disk.clone() };
        known.must_allow(&image(3, &[("/images/base", raw)]), &read_only).unwrap();
    }

    #[test]
    fn a_backing_file_may_have_another_name_and_be_no_other_file() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir(at("new")).unwrap();
        std::os::unix::fs::symlink(at("new"), at("old")).unwrap();
        for name in ["new/base", "new/other"] {
            fs::write(at(name), "").unwrap();
        }
        let disk = Disk { format: ImageFormat::Qcow2, ..Disk::new("/a.qcow2") };
        let backed = |name: &str, format| image(1, &[(&*at(name), format)]);
        let known = backed("old/base", ImageFormat::Raw);
        for name in ["new/base", "old/../new/base", "new/../old/base"] {
            known.must_allow(&backed(name, ImageFormat::Raw), &disk).unwrap();
            known.must_allow(&backed(name, ImageFormat::Qcow2), &disk).unwrap_err();
        }
        for name in ["new/other", "new/missing"] {
            known.must_allow(&backed(name, ImageFormat::Raw), &disk).unwrap_err();
        }
        let gone = backed("old/missing", ImageFormat::Raw);
        gone.must_allow(&backed("new/missing", ImageFormat::Raw), &disk).unwrap_err();
    }

    #[test]
    fn what_was_found_first_counts() {
        let mut known = Vec::new();
        assert!(remember(&mut known, vec![image(2, &[])]));
        assert!(!remember(&mut known, vec![image(1, &[])]));
        assert_eq!(known, [image(2, &[])]);
    }

    #[test]
    fn images_that_are_no_disks_any_more_are_forgotten() {
        let text = "name = 'a'\nsize = '64MiB'\n[boot]\nmodel = true\n[[disk]]\npath = '/a.qcow2'\nformat = 'qcow2'\n";
        let definition = VmDefinition::from_toml(text, Path::new("/")).unwrap();
        let known = [image(1, &[]), KnownImage { path: "/b.qcow2".into(), ..image(1, &[]) }];
        assert_eq!(of(&definition, &known), known[..1]);
        let raw = VmDefinition::from_toml(&text.replace("'qcow2'\n", "'raw'\n"), Path::new("/")).unwrap();
        assert_eq!(of(&raw, &known), []);
    }
}
