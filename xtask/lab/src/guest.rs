//! The guests' tiny first file system: busybox, virtio's drivers and `toucher`, for Debian's
//! unmodified kernels.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cache;
use crate::cpio::Archive;
use crate::kernel::{Kernel, Version};
use crate::programs::{self, add_busybox, stripped};
use crate::workspace::{Programs, step};

/// The drivers of what the VMM shows its guests; `button` and `evdev` bring the power button to
/// acpid.
const MODULES: &[&str] = &[
    "virtio_mmio",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_balloon",
    "virtio_rng",
    "virtio_console",
    "vmw_vsock_virtio_transport",
    "button",
    "evdev",
];

/// Where the drivers are, which are loaded in the order of their names.
pub const MODULES_DIRECTORY: &str = "lib/guest-modules";

/// What the guest's kernel starts. The last line keeps `toucher` the console's only user.
const INIT: &str = r#"#!/bin/sh
export PATH=/bin
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
# As modprobe does, init leaves drivers out that the kernel's command line names.
excluded=
for word in $(cat /proc/cmdline); do
    case $word in modprobe.blacklist=*) excluded=,${word#*=}, ;; esac
done
for module in /lib/guest-modules/*.ko; do
    name=${module##*-}
    case $excluded in *,"${name%.ko}",*) continue ;; esac
    insmod "$module" || echo "init: $module did not load"
done
ip link set lo up
stty -F /dev/ttyS0 -echo
echo "init: user space is up"
# acpid stands in for systemd: it turns the power button into a clean end.
acpid -f -l /dev/null -c /etc/acpi </dev/null >/dev/null 2>&1 &
exec toucher </dev/ttyS0 >/dev/ttyS0 2>&1
"#;

/// A guest's kernel and first file system, in the cache.
#[derive(Clone, Debug)]
pub struct Image {
    /// The kernel's version.
    pub version: Version,
    /// The directory that holds both.
    pub directory: PathBuf,
}

impl Image {
    /// The bzImage.
    pub fn kernel(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// The first file system.
    pub fn initrd(&self) -> PathBuf {
        self.directory.join("initrd")
    }
}

/// The image for `version`, from the cache where its inputs are the same.
pub fn build(version: Version, programs: &Programs) -> Result<Image> {
    let busybox = programs::busybox()?;
    let toucher = programs.get("toucher").context("toucher was not built")?;
    let kernel = Kernel::get(version)?;
    let (shell, program) = (fs::read(&busybox)?, fs::read(toucher)?);
    let modules = MODULES.join(" ");
    let key = cache::key([kernel.release.as_bytes(), INIT.as_bytes(), modules.as_bytes(), &shell, &program]);
    let home = cache::directory()?.join("guests");
    let directory = home.join(format!("{version}-{key}"));
    if directory.join("initrd").is_file() {
        cache::used(&directory);
        return Ok(Image { version, directory });
    }
    step(&format!("building the guests' image for {}", kernel.release));
    fs::create_dir_all(&home)?;
    cache::evict(&home)?;
    let scratch = tempfile::tempdir_in(&home)?;
    let mut archive = Archive::new(Vec::new());
    for directory in ["dev", "proc", "sys", "tmp", "etc"] {
        archive.directory(directory)?;
    }
    archive.device("dev/console", 0o600, 5, 1)?;
    archive.device("dev/null", 0o666, 1, 3)?;
    add_busybox(&mut archive, &busybox)?;
    archive.file("bin/toucher", 0o755, &stripped(toucher)?)?;
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.file("etc/acpi/PWRF/00000080", 0o755, b"#!/bin/sh\necho 'init: power button'\npoweroff -f\n")?;
    for (index, (name, content)) in kernel.modules(MODULES)?.iter().enumerate() {
        archive.file(&format!("{MODULES_DIRECTORY}/{index:02}-{name}"), 0o644, content)?;
    }
    let mut initrd = fs::File::create(scratch.path().join("initrd"))?;
    initrd.write_all(&archive.finish()?)?;
    fs::copy(&kernel.image, scratch.path().join("vmlinuz"))?;
    cache::keep(scratch, &directory, "initrd")?;
    Ok(Image { version, directory })
}
