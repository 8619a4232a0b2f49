use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, ensure};
use plimsoll_protocol::control::FdRole;
use plimsoll_protocol::definition::VmDefinition;

use super::disk::{self, OpenDisk};
use super::{bzimage, seed, tap};

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
    taps: Vec<OwnedFd>,
}

impl Resources {
    /// Opens what `definition` names. Changes nothing but the state of its taps, which ends with
    /// the descriptors.
    ///
    /// # Errors
    /// What cannot be used, and what to do.
    pub(super) fn open(definition: &VmDefinition) -> anyhow::Result<Self> {
        let boot = &definition.boot;
        let kernel = boot.kernel.as_deref().map(kernel).transpose()?;
        let initrd = boot.initrd.as_deref().map(initrd).transpose()?;
        let disks = definition
            .disks
            .iter()
            .map(|d| disk::open(d).with_context(|| format!("disk {}", d.path.display())))
            .collect::<anyhow::Result<_>>()?;
        let file = |path: &Path| regular(path).map(|(file, _)| file);
        let seed = definition.cloud_init.as_ref();
        let seed = seed.map(|cloud_init| seed::make(&definition.name, cloud_init, file)).transpose()?;
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
        Ok(Self { kvm: kvm.transpose()?, userfaultfd: userfaultfd?, kernel, initrd, disks, seed, taps })
    }

    /// What the operator should know of them, each in one line.
    pub(super) fn remarks(&self) -> Vec<String> {
        self.disks.iter().filter_map(|disk| disk.remark.clone()).collect()
    }

    /// The descriptors, each with its role.
    pub(super) fn into_parts(self) -> anyhow::Result<(Vec<FdRole>, Vec<OwnedFd>)> {
        let mut parts: Vec<(FdRole, OwnedFd)> = Vec::new();
        parts.extend(self.kvm.map(|f| (FdRole::Kvm, f.into())));
        parts.push((FdRole::Userfaultfd, self.userfaultfd.into()));
        parts.extend(self.kernel.map(|f| (FdRole::Kernel, f.into())));
        parts.extend(self.initrd.map(|f| (FdRole::Initrd, f.into())));
        let disks = self.disks.into_iter().map(|disk| disk.file).chain(self.seed);
        for (index, file) in disks.enumerate() {
            parts.push((FdRole::Disk(u8::try_from(index)?), file.into()));
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
