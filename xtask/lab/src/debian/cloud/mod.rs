//! Debian's cloud image, built as its cloud team builds theirs: their packages and partitions, GRUB
//! for BIOS and EFI with the configuration that `update-grub` writes, and a qcow2 with compressed
//! clusters. Documentation, manuals and translations are left out, which saves a guest's time.
//!
//! It is made in three steps, without a loop device or a mount on this machine:
//!
//! | step | by |
//! |---|---|
//! | a root file system, in the first partition of a disk | `mmdebstrap`, `sfdisk`, `mke2fs -d` (`finish.sh`) |
//! | GRUB, its configuration, and the EFI system partition | the disk's own programs, which need it as a block device: its system is booted once under QEMU (`complete.sh`, [`boot_once()`]) |
//! | the qcow2 | `qemu-img convert -c` |

mod boot_once;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use preflight::{packages, program};

use self::boot_once::boot_once;
use super::bootstrap::Bootstrap;
use crate::workspace::step;
use crate::{cache, command};

/// mmdebstrap's variant: what every Debian has that its installer makes.
const VARIANT: &str = "important";

/// What cloud images have on top.
const PACKAGES: &str = "linux-image-cloud-amd64,grub-cloud-amd64,initramfs-tools,cloud-init,\
    cloud-guest-utils,openssh-server,sudo,dbus,libpam-systemd,dosfstools,zstd";

/// Runs as mmdebstrap's last step, and makes the disk.
const FINISH: &str = include_str!("finish.sh");

/// Runs once as the disk's first process, and completes it.
const COMPLETE: &str = include_str!("complete.sh");

/// What the last script says when it has done everything.
const COMPLETED: &str = "plimsoll: the image is complete";

/// The command line with which the disk is completed.
const CMDLINE: &str =
    "root=/dev/vda1 rw init=/plimsoll-complete console=ttyS0 quiet panic=-1 mitigations=off";

/// A built image, in the cache.
#[derive(Clone, Debug)]
pub struct CloudImage {
    directory: PathBuf,
}

impl CloudImage {
    /// The name of the qcow2 image.
    pub const FILE: &'static str = "debian.qcow2";

    /// The directory that holds [`CloudImage::FILE`] and nothing else.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The image, from the cache where its inputs are the same.
///
/// # Errors
/// A program is missing, or fails.
pub fn build() -> Result<CloudImage> {
    let key = cache::key([VARIANT, PACKAGES, FINISH, COMPLETE, CMDLINE].map(str::as_bytes));
    let home = cache::directory()?.join("cloud");
    let directory = home.join(key);
    if directory.is_dir() {
        cache::used(&directory);
        return Ok(CloudImage { directory });
    }
    packages::ensure(packages::LAB)?;
    packages::ensure(packages::DISK)?;
    packages::ensure(packages::CLOUD_IMAGE)?;
    step("building Debian's cloud image (some minutes)");
    fs::create_dir_all(&home)?;
    cache::evict(&home)?;
    let made = tempfile::tempdir_in(&home)?;
    let scratch = tempfile::tempdir_in(&home)?;
    let bootstrap = Bootstrap {
        variant: VARIANT,
        packages: PACKAGES,
        finish: FINISH,
        files: &[("complete.sh", COMPLETE)],
        variables: &[],
    };
    bootstrap.run(scratch.path())?;
    let [disk, kernel, initrd] = ["disk", "vmlinuz", "initrd"].map(|name| scratch.path().join(name));
    for file in [&disk, &kernel, &initrd] {
        ensure!(file.is_file(), "mmdebstrap ended without making {}", file.display());
    }
    step("installing GRUB on the cloud image");
    let console = boot_once(&kernel, &initrd, &disk, CMDLINE)?;
    ensure!(console.contains(COMPLETED), "GRUB was not installed on the cloud image:\n{console}");
    step("compressing the cloud image");
    let qemu_img = program::find("qemu-img").context("qemu-img not found: install qemu-utils")?;
    let mut convert = Command::new(qemu_img);
    convert.args(["convert", "-c", "-f", "raw", "-O", "qcow2"]).arg(&disk);
    command::run(convert.arg(made.path().join(CloudImage::FILE)))?;
    cache::keep(made, &directory, CloudImage::FILE)?;
    Ok(CloudImage { directory })
}
