//! The seed for cloud-init in a guest: a small FAT volume named CIDATA with the files that its data
//! source NoCloud looks for.
//!
//! It is made at each start, in memory that nobody can write any more once it is made, and shown as
//! a read-only disk. The same definition and files make the same bytes. FAT and not ISO 9660:
//! distributions' kernels have both, and for FAT there is a crate that writes it and reads it back.
//!
//! cloud-init runs once for each `instance-id`. Without one of the operator's own it changes with
//! the VM's name and the seed's other content, so that what the operator changes takes effect at
//! the next start.

mod yaml;

use std::fs::File;
use std::io::{self, Cursor, Read, Write};

use anyhow::{Context, ensure};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use plimsoll_protocol::VmName;
use plimsoll_protocol::definition::{CloudInit, MAX_SEED, MAX_SEED_FILE};
use plimsoll_units::Bytes;
use rustix::fs::{MemfdFlags, SealFlags};

use self::yaml::{list, quoted};

/// What the file system takes beside its files: tables, the root directory, ends of clusters.
const TABLES: u64 = 32 << 10;

/// The seed's files.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    user_data: Vec<u8>,
    meta_data: Vec<u8>,
    network_config: Option<Vec<u8>>,
    vendor_data: Option<Vec<u8>>,
}

/// Installs the agent from its disk. cloud-init runs it once for each instance, beside what the
/// user data says.
const INSTALL_AGENT: &str = "#!/bin/sh
set -e
program=/usr/local/sbin/plimsoll-agent
cat /dev/disk/by-id/virtio-plimsoll-agent > $program.new
chmod 755 $program.new
mv $program.new $program
exec $program install
";

/// Makes the seed of VM `name`: a file in memory that cannot be changed. With `agent` it has
/// cloud-init install the agent. `open` opens one of the definition's files.
///
/// # Errors
/// A file that cannot be read or is too long, or no memory.
pub(super) fn make(
    name: &VmName,
    cloud_init: &CloudInit,
    agent: bool,
    open: impl Fn(&std::path::Path) -> anyhow::Result<File>,
) -> anyhow::Result<File> {
    let read = |path: &std::path::PathBuf| {
        open(path).and_then(bounded).with_context(|| format!("cloud_init: {}", path.display()))
    };
    let user_data = cloud_init.user_data.as_ref().map(read).transpose()?;
    let network_config = cloud_init.network_config.as_ref().map(read).transpose()?;
    let meta_data = cloud_init.meta_data.as_ref().map(read).transpose()?;
    let vendor_data = agent.then(|| INSTALL_AGENT.as_bytes().to_vec());
    let user_data = user_data.unwrap_or_else(|| user_data_of(cloud_init).into_bytes());
    let meta_data = meta_data.unwrap_or_else(|| {
        let network_config = network_config.as_deref();
        meta_data_of(name, cloud_init, &user_data, network_config, vendor_data.as_deref()).into_bytes()
    });
    let content = Content { user_data, meta_data, network_config, vendor_data };
    let volume = volume(&content).context("cloud_init: the seed")?;
    sealed(&volume).context("cloud_init: the seed's memory")
}

fn bounded(file: File) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(MAX_SEED_FILE.0 + 1).read_to_end(&mut content).context("cannot be read")?;
    ensure!(content.len() as u64 <= MAX_SEED_FILE.0, "it is longer than {MAX_SEED_FILE}");
    Ok(content)
}

/// The user data that the short keys make.
fn user_data_of(cloud_init: &CloudInit) -> String {
    let mut keys = String::new();
    if let Some(hash) = &cloud_init.password_hash {
        keys += &format!("user:\n  lock_passwd: false\n  passwd: {}\n", quoted(hash));
    }
    if !cloud_init.ssh_authorized_keys.is_empty() {
        keys += &format!("ssh_authorized_keys:\n{}", list(&cloud_init.ssh_authorized_keys));
    }
    if !cloud_init.packages.is_empty() {
        keys += &format!("package_update: true\npackages:\n{}", list(&cloud_init.packages));
    }
    // cloud-init complains about a document without keys.
    format!("#cloud-config\n{}", if keys.is_empty() { "{}\n" } else { &keys })
}

fn meta_data_of(
    name: &VmName,
    cloud_init: &CloudInit,
    user_data: &[u8],
    network_config: Option<&[u8]>,
    vendor_data: Option<&[u8]>,
) -> String {
    let hostname = cloud_init.hostname.as_deref().unwrap_or(name.as_str());
    let id = cloud_init.instance_id.clone().unwrap_or_else(|| {
        let mut digest = blake3::Hasher::new();
        let parts = [hostname.as_bytes(), user_data, network_config.unwrap_or_default()];
        for part in parts.into_iter().chain(vendor_data) {
            digest.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        // Eight bytes: a changed seed has another name, and names stay readable.
        format!("{name}-{}", &digest.finalize().to_hex()[..16])
    });
    format!("instance-id: {}\nlocal-hostname: {}\n", quoted(&id), quoted(hostname))
}

/// A volume with the files of `content`.
fn volume(content: &Content) -> io::Result<Vec<u8>> {
    let files = [
        ("user-data", Some(&content.user_data)),
        ("meta-data", Some(&content.meta_data)),
        ("network-config", content.network_config.as_ref()),
        ("vendor-data", content.vendor_data.as_ref()),
    ];
    let files = files.into_iter().filter_map(|(name, file)| Some((name, file?)));
    let bytes: u64 = files.clone().map(|(_, file)| file.len() as u64).sum();
    let length = Bytes((bytes + TABLES).next_multiple_of(4096));
    debug_assert!(length <= MAX_SEED);
    let length = usize::try_from(length.0).map_err(io::Error::other)?;
    let mut volume = vec![0; length];
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat12)
        .bytes_per_cluster(512)
        .max_root_dir_entries(64)
        .volume_label(*b"CIDATA     ");
    fatfs::format_volume(Cursor::new(&mut volume[..]), options)?;
    {
        // Without its feature `chrono`, the crate dates all files 1980.
        let system = FileSystem::new(Cursor::new(&mut volume[..]), FsOptions::new())?;
        for (name, content) in files {
            let mut file = system.root_dir().create_file(name)?;
            file.write_all(content)?;
            file.flush()?;
        }
        system.unmount()?;
    }
    Ok(volume)
}

/// A file in memory with `content`, which nobody can change.
pub(super) fn sealed(content: &[u8]) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("plimsoll-seed", flags)?);
    file.write_all(content)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
