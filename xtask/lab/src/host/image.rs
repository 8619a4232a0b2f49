//! The lab's first and only file system: busybox, the kernel's modules and our programs, in a cpio
//! archive.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cpio::Archive;
use crate::kernel::{Kernel, Version};
use crate::programs::{self, add_busybox, stripped};
use crate::workspace::{Programs, note, step};
use crate::{cache, guest};

/// Drivers of the lab's own hardware, and what a virtual-machine host uses. `kvm_amd` is loaded
/// with its `npt` option.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "tun",
    "bridge",
    "loop",
    "kvm_amd",
];

/// The image for `kernel` with `programs`, from the cache where its inputs are the same.
pub(crate) fn build(kernel: &Kernel, programs: &Programs) -> Result<PathBuf> {
    let busybox = programs::busybox()?;
    let guests = Version::ALL.iter().map(|version| guest::build(*version, programs));
    let guests = guests.collect::<Result<Vec<_>>>()?;
    let mut inputs = vec![fs::read(&busybox)?, kernel.release.clone().into_bytes()];
    for (name, path) in programs {
        inputs.push(name.clone().into_bytes());
        inputs.push(fs::read(path).with_context(|| format!("reading {}", path.display()))?);
    }
    inputs.extend(guests.iter().map(|guest| guest.directory.to_string_lossy().into_owned().into_bytes()));
    let key = cache::key(inputs.iter().map(Vec::as_slice));
    let home = images()?;
    let place = home.join(format!("{}-{key}.cpio", kernel.release));
    if place.is_file() {
        cache::used(&place);
        return Ok(place);
    }
    step(&format!("building the lab's image for {}", kernel.release));
    cache::evict(&home)?;
    let scratch = tempfile::NamedTempFile::new_in(&home)?;
    let mut archive = Archive::new(BufWriter::new(File::create(scratch.path())?));
    fill(&mut archive, kernel, programs, &busybox, &guests)?;
    archive.finish()?;
    scratch.persist(&place).with_context(|| format!("keeping {}", place.display()))?;
    note(&format!("{} MiB", fs::metadata(&place)?.len() >> 20));
    Ok(place)
}

fn fill(
    archive: &mut Archive<BufWriter<File>>,
    kernel: &Kernel,
    programs: &Programs,
    busybox: &Path,
    guests: &[guest::Image],
) -> Result<()> {
    for directory in ["dev", "proc", "sys", "run", "tmp", "root", "share", "artifacts", "var/lib", "etc"] {
        archive.directory(directory)?;
    }
    archive.device("dev/console", 0o600, 5, 1)?;
    archive.device("dev/null", 0o666, 1, 3)?;
    archive.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    archive.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n")?;
    add_busybox(archive, busybox)?;
    for (name, path) in programs {
        archive.file(&format!("bin/{name}"), 0o755, &stripped(path)?)?;
    }
    archive.symlink("init", "bin/xtask")?;
    for (index, (name, content)) in kernel.modules(MODULES)?.iter().enumerate() {
        archive.file(&format!("lib/lab-modules/{index:02}-{name}"), 0o644, content)?;
    }
    for guest in guests {
        archive.copy(&format!("guests/{}/vmlinuz", guest.version), 0o644, &guest.kernel())?;
        archive.copy(&format!("guests/{}/initrd", guest.version), 0o644, &guest.initrd())?;
    }
    Ok(())
}

/// Where built lab images are kept. Old ones are removed when new ones are made.
fn images() -> Result<PathBuf> {
    let path = cache::directory()?.join("lab");
    fs::create_dir_all(&path)?;
    Ok(path)
}
