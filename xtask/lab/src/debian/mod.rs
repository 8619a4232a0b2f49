//! A Debian disk: a root file system with Debian's own kernel, initramfs-tools, systemd and udev,
//! as its packages come. [`cloud`] makes an image as those that Debian's cloud team publishes.
//!
//! `mmdebstrap` makes it from the mirrors that this machine's apt is configured with; `mke2fs -d`
//! puts it into an ext4 image, so nothing is ever mounted. Images are cached by what went into
//! them.
//!
//! The disk also boots by itself (`boot.from = "disk"`): its `/boot` has a `grub.cfg` as
//! `grub-mkconfig` writes it with `GRUB_DEFAULT=saved`. GRUB is not installed, and `grub-mkconfig`
//! needs a block device, so the file is made of a template. The word `plimsoll.entry=advanced`
//! tells which of its two entries was booted.

mod bootstrap;
pub mod cloud;
mod mirrors;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use plimsoll_units::Bytes;
use preflight::{kernel, packages};

use self::bootstrap::Bootstrap;

use crate::kernel::Version;
use crate::workspace::{note, step};
use crate::{cache, command};

/// What the disk holds beside Debian's essential packages and the kernel.
const PACKAGES: &str = "initramfs-tools,systemd,systemd-sysv,udev,dbus,kmod,iproute2,e2fsprogs,zstd";

/// The smallest disk on which the system fits with room to work.
pub(crate) const MIN_SIZE: Bytes = Bytes::mib(768);

/// What `grub-mkconfig` would write, with `@UUID@` for that of the file system and `@RELEASE@` for
/// the kernel's.
const GRUB: &str = include_str!("grub.cfg");

/// Runs as mmdebstrap's last step: $1 is the new root. The system gets a name, its root file
/// system, a console without a password, and none of the timers that would wake an idle guest; then
/// it becomes an image, and its kernel and initrd are put beside it.
const FINISH: &str = r#"set -e
root=$1
echo debian > "$root/etc/hostname"
echo "/dev/vda / ext4 defaults 0 1" > "$root/etc/fstab"
chroot "$root" passwd --quiet --delete root
for timer in apt-daily apt-daily-upgrade dpkg-db-backup e2scrub_all fstrim; do
    ln -sf /dev/null "$root/etc/systemd/system/$timer.timer"
done
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
release=$(basename "$root"/boot/vmlinuz-*)
release=${release#vmlinuz-}
uuid=$(cat /proc/sys/kernel/random/uuid)
mkdir -p "$root/boot/grub"
sed -e "s/@UUID@/$uuid/g" -e "s/@RELEASE@/$release/g" "$IN/grub.cfg" > "$root/boot/grub/grub.cfg"
cp "$root"/boot/vmlinuz-* "$OUT/vmlinuz"
cp "$root"/boot/initrd.img-* "$OUT/initrd"
# mmdebstrap keeps /proc and its like mounted while this runs; they must not be copied.
unshare --mount sh -ec '
    for place in proc sys dev; do
        while umount --recursive --lazy "$1/$place" 2>/dev/null; do :; done
    done
    test ! -e "$1/proc/self"
    mke2fs -q -F -t ext4 -m 0 -U "$2" -d "$1" "$OUT/disk" "$SIZE"
' finish "$root" "$uuid"
"#;

/// A built disk, in the cache.
#[derive(Clone, Debug)]
pub struct Disk {
    directory: PathBuf,
}

impl Disk {
    /// The raw ext4 image; boot it with `root=/dev/vda`, or by its own GRUB's configuration.
    pub fn image(&self) -> PathBuf {
        self.directory.join("disk")
    }

    /// The directory that holds `disk`, `vmlinuz` and `initrd`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its kernel.
    pub fn kernel(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// Its initial ram disk.
    pub fn initrd(&self) -> PathBuf {
        self.directory.join("initrd")
    }

    /// Copies the image to `path`, and kernel and initrd beside it, with `.vmlinuz` and `.initrd`
    /// after the name.
    pub fn copy_to(&self, path: &Path) -> Result<()> {
        let beside = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        for (from, to) in [
            (self.image(), path.to_owned()),
            (self.kernel(), beside(".vmlinuz")),
            (self.initrd(), beside(".initrd")),
        ] {
            let mut cp = Command::new("cp");
            command::run(cp.args(["--sparse=always", "--reflink=auto"]).arg(&from).arg(&to))?;
            note(&to.display().to_string());
        }
        Ok(())
    }
}

/// The disk of `size` with the kernel `version`, from the cache where its inputs are the same.
pub fn build(version: Version, size: Bytes) -> Result<Disk> {
    ensure!(size >= MIN_SIZE, "a Debian disk of {size} is too small: give it {MIN_SIZE} or more");
    let package = kernel::fetch(version)?;
    with_kernel(version, &package, size).or_else(|error| {
        // The archive may have replaced the kernel that the cache has.
        match kernel::newer(version, &package) {
            Ok(Some(newer)) => with_kernel(version, &newer, size),
            _ => Err(error),
        }
    })
}

/// The disk with the kernel in `package`.
fn with_kernel(version: Version, package: &str, size: Bytes) -> Result<Disk> {
    let parts = [package, PACKAGES, FINISH, GRUB].map(str::as_bytes);
    let key = cache::key(parts.into_iter().chain([size.0.to_le_bytes().as_slice()]));
    let home = cache::directory()?.join("disks");
    let directory = home.join(format!("{version}-{key}"));
    if directory.is_dir() {
        cache::used(&directory);
        return Ok(Disk { directory });
    }
    packages::ensure(packages::DISK)?;
    step(&format!("building a Debian disk of {size} with {package} (about a minute)"));
    fs::create_dir_all(&home)?;
    cache::evict(&home)?;
    let scratch = tempfile::tempdir_in(&home)?;
    let bootstrap = Bootstrap {
        variant: "minbase",
        packages: &format!("{package},{PACKAGES}"),
        finish: FINISH,
        files: &[("grub.cfg", GRUB)],
        variables: &[("SIZE", format!("{}k", size.0 >> 10))],
    };
    bootstrap.run(scratch.path())?;
    for file in ["disk", "vmlinuz", "initrd"] {
        ensure!(scratch.path().join(file).is_file(), "mmdebstrap ended without making the {file}");
    }
    cache::keep(scratch, &directory, "disk")?;
    Ok(Disk { directory })
}
