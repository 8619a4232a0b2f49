use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, ensure};
use plimsoll_protocol::control::{DiskConfig, FdRole, RateLimit};
use plimsoll_protocol::definition::{AGENT_SERIAL, Disk, ImageFormat, VmDefinition};
use plimsoll_units::Bytes;

use super::disk::{self, OpenDisk};
use super::{agent_disk, bzimage, seed, tap};
use crate::images::KnownImage;

/// Most files of all disks: one for each of 32, and backing files. A message takes 64 descriptors,
/// of which eighteen may be others, seed and agent among them.
const MAX_FILES: usize = 46;

/// The host's files and devices that a VM uses, open and checked.
#[derive(Debug)]
pub(super) struct Resources {
    kvm: Option<File>,
    userfaultfd: File,
    kernel: Option<File>,
    initrd: Option<File>,
    disks: Vec<OpenDisk>,
    /// The disk behind those: what cloud-init is told.
    seed: Option<File>,
    /// The last disk: the agent's program.
    agent: Option<File>,
    taps: Vec<OwnedFd>,
}

impl Resources {
    /// Opens what `definition` names; base images lie below `images`, and `agent` is the program
    /// for guests. `known` are images that were used before. Changes nothing but the state of its
    /// taps, which ends with the descriptors.
    ///
    /// # Errors
    /// What cannot be used, and what to do.
    pub(super) fn open(
        definition: &VmDefinition,
        known: &[KnownImage],
        images: &Path,
        agent: &Path,
    ) -> anyhow::Result<Self> {
        let boot = &definition.boot;
        let kernel = boot.kernel.as_deref().map(kernel).transpose()?;
        let initrd = boot.initrd.as_deref().map(initrd).transpose()?;
        let disks = definition
            .disks
            .iter()
            .map(|d| {
                let known = known.iter().find(|image| image.path == d.path);
                disk::open(d, known, images).with_context(|| format!("disk {}", d.path.display()))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let files: usize = disks.iter().map(|disk| 1 + disk.backing.len()).sum();
        ensure!(
            files <= MAX_FILES,
            "the disks have {files} files with their backing files: at most {MAX_FILES} are allowed"
        );
        let file = |path: &Path| regular(path).map(|(file, _)| file);
        let seed = definition.cloud_init.as_ref();
        let with_agent = definition.vsock.is_some_and(|vsock| vsock.agent);
        let seed =
            seed.map(|cloud_init| seed::make(&definition.name, cloud_init, with_agent, file)).transpose()?;
        let agent = with_agent.then(|| agent_disk::open(agent)).transpose().context("vsock.agent")?;
        let kvm = (!boot.model).then(|| {
            device("/dev/kvm", "load kvm-intel or kvm-amd, or switch virtualization on in the firmware; plimsoll doctor says more")
        });
        let userfaultfd =
            device("/dev/userfaultfd", "a kernel of Linux 6.1 or newer with CONFIG_USERFAULTFD has it");
        let taps = definition
            .nets
            .iter()
            .map(|n| tap::open(&n.tap).with_context(|| format!("tap {}", n.tap)))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            kvm: kvm.transpose()?,
            userfaultfd: userfaultfd?,
            kernel,
            initrd,
            disks,
            seed,
            agent,
            taps,
        })
    }

    /// What the VMM is told of the disks of `definition`, and of seed and agent behind them.
    pub(super) fn disk_configs(&self, definition: &VmDefinition) -> Vec<DiskConfig> {
        let disk = |(index, (disk, open)): (usize, (&Disk, &OpenDisk))| DiskConfig {
            serial: disk.serial(index),
            read_only: disk.read_only,
            format: disk.format,
            backing: open.backing.iter().map(|(_, format)| *format).collect(),
            longest: open.longest,
            rate: disk.into(),
        };
        let made = |serial: String| DiskConfig {
            serial,
            read_only: true,
            format: ImageFormat::Raw,
            backing: Vec::new(),
            longest: Bytes::ZERO,
            rate: RateLimit::default(),
        };
        let seed = self.seed.iter().map(|_| made(Disk::made_serial(definition.disks.len())));
        let agent = self.agent.iter().map(|_| made(AGENT_SERIAL.to_owned()));
        let disks = definition.disks.iter().zip(&self.disks).enumerate().map(disk);
        disks.chain(seed).chain(agent).collect()
    }

    /// What the operator should know of them, each in one line.
    pub(super) fn remarks(&self) -> Vec<String> {
        self.disks.iter().filter_map(|disk| disk.remark.clone()).collect()
    }

    /// The images among the disks, as they were found.
    pub(super) fn images(&self) -> Vec<KnownImage> {
        self.disks.iter().filter_map(|disk| disk.image.clone()).collect()
    }

    /// The descriptors, each with its role.
    pub(super) fn into_parts(self) -> anyhow::Result<(Vec<FdRole>, Vec<OwnedFd>)> {
        let mut parts: Vec<(FdRole, OwnedFd)> = Vec::new();
        parts.extend(self.kvm.map(|f| (FdRole::Kvm, f.into())));
        parts.push((FdRole::Userfaultfd, self.userfaultfd.into()));
        parts.extend(self.kernel.map(|f| (FdRole::Kernel, f.into())));
        parts.extend(self.initrd.map(|f| (FdRole::Initrd, f.into())));
        let made = self.seed.into_iter().chain(self.agent).map(|file| (file, Vec::new()));
        let disks = self.disks.into_iter().map(|disk| (disk.file, disk.backing)).chain(made);
        for (index, (file, backing)) in (0..).zip(disks) {
            parts.push((FdRole::Disk(index), file.into()));
            parts.extend(backing.into_iter().map(|(file, _)| (FdRole::Backing(index), file.into())));
        }
        for (index, fd) in self.taps.into_iter().enumerate() {
            parts.push((FdRole::Tap(u8::try_from(index)?), fd));
        }
        Ok(parts.into_iter().unzip())
    }
}

fn kernel(path: &Path) -> anyhow::Result<File> {
    regular(path)
        .and_then(|(file, len)| bzimage::check(&file, len).map(|()| file))
        .with_context(|| format!("kernel {}", path.display()))
}

fn initrd(path: &Path) -> anyhow::Result<File> {
    let checked = regular(path).and_then(|(file, len)| {
        ensure!(len > 0, "it is empty: copy it again");
        Ok(file)
    });
    checked.with_context(|| format!("initrd {}", path.display()))
}

/// Opens a regular file for reading; with its length.
fn regular(path: &Path) -> anyhow::Result<(File, u64)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .context("cannot be opened")?;
    let metadata = file.metadata().context("cannot be looked at")?;
    ensure!(metadata.is_file(), "it is no regular file");
    Ok((file, metadata.len()))
}

fn device(path: &str, advice: &str) -> anyhow::Result<File> {
    OpenOptions::new().read(true).write(true).open(path).map_err(|e| {
        let advice = if e.kind() == std::io::ErrorKind::PermissionDenied {
            "run plimsolld as root, or give its user the right to open it"
        } else {
            advice
        };
        anyhow::Error::from(e).context(format!("{path} cannot be opened ({advice})"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file_and_what_is_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("k");
        let text = |e: anyhow::Result<File>| format!("{:#}", e.unwrap_err());
        assert!(text(kernel(&path)).starts_with(&format!("kernel {}", path.display())));
        std::fs::write(&path, "").unwrap();
        assert!(text(kernel(&path)).contains("no Linux kernel"));
        assert!(text(initrd(&path)).contains("empty"));
        assert!(text(initrd(directory.path())).contains("no regular file"));
        std::fs::write(&path, bzimage::tests::kernel()).unwrap();
        assert!(kernel(&path).is_ok() && initrd(&path).is_ok());
        assert!(text(device("/nowhere", "do this")).contains("do this"));
    }
}
