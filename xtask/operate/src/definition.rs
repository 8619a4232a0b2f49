//! Definitions of the VMs that demo and tests run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plimsoll_lab::guest;
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace;
use plimsoll_protocol::Burst;
use plimsoll_protocol::control::RateLimit;
use plimsoll_protocol::definition::{Bus, VmDefinition};
use plimsoll_units::Bytes;

use crate::place::in_lab;

/// What a guest runs.
#[derive(Clone, Debug)]
pub enum Runs {
    /// A Debian kernel with the tiny image, `toucher` at its console.
    Toucher(Version),
    /// This kernel and initrd, `toucher` at their console.
    Kernel {
        /// The bzImage.
        kernel: PathBuf,
        /// The initial ram disk.
        initrd: PathBuf,
    },
    /// No kernel: a thread of the VMM that speaks `toucher`'s language.
    Model,
    /// This kernel, initrd and disk.
    Debian {
        /// The bzImage.
        kernel: PathBuf,
        /// The initial ram disk.
        initrd: PathBuf,
        /// The root file system.
        disk: PathBuf,
    },
    /// What this disk's own boot loader would boot.
    Disk(PathBuf),
}

/// One VM.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// Its guest-physical memory.
    pub size: Bytes,
    /// Its processors.
    pub vcpus: u8,
    /// Where its devices are.
    pub bus: Bus,
    /// Machine memory that it always has.
    pub reservation: Bytes,
    /// Its guest gives memory back as soon as it is free; without, only its balloon does.
    pub reports_free_pages: bool,
    /// Its guest loads its balloon driver.
    pub balloon_driver: bool,
    /// Further words of its kernel's command line.
    pub kernel_words: Option<String>,
    /// What it shares pages with; `None`: as VMs do by default.
    pub sharing: Option<String>,
    /// What it runs.
    pub runs: Runs,
    /// Tap devices, which exist.
    pub taps: Vec<String>,
    /// How fast the disk that it boots from may be.
    pub boot_disk_rate: RateLimit,
    /// Read-write disks beside what it boots from.
    pub disks: Vec<PathBuf>,
    /// Read-only disks, after those.
    pub read_only_disks: Vec<PathBuf>,
    /// What cloud-init in its guest is told: lines of `[cloud_init]`.
    pub cloud_init: Option<String>,
    /// Its sockets to the host: lines of `[vsock]`.
    pub vsock: Option<String>,
}

impl Definition {
    /// A VM of `size` with one processor that runs `runs`.
    pub fn new(name: &str, size: Bytes, runs: Runs) -> Self {
        let (taps, disks, read_only_disks) = (Vec::new(), Vec::new(), Vec::new());
        let (name, reservation) = (name.to_owned(), Bytes::ZERO);
        let (vcpus, reports_free_pages, balloon_driver) = (1, true, true);
        Self {
            name,
            size,
            vcpus,
            bus: Bus::default(),
            reservation,
            reports_free_pages,
            balloon_driver,
            kernel_words: None,
            sharing: None,
            runs,
            taps,
            boot_disk_rate: RateLimit::default(),
            disks,
            read_only_disks,
            cloud_init: None,
            vsock: None,
        }
    }

    /// As an operator would write it.
    pub fn text(&self) -> Result<String> {
        let mut text =
            format!("name = {:?}\nsize = {:?}\nvcpus = {}\n", self.name, self.size.to_string(), self.vcpus);
        if self.bus != Bus::default() {
            text += &format!("bus = \"{}\"\n", self.bus);
        }
        if self.reservation > Bytes::ZERO {
            text += &format!("reservation = {:?}\n", self.reservation.to_string());
        }
        if let Some(sharing) = &self.sharing {
            text += &format!("[memory]\nsharing = {sharing:?}\n");
        }
        text += &self.boot()?;
        if !self.reports_free_pages {
            text += "[balloon]\nfree_page_reporting = false\n";
        }
        for disk in &self.disks {
            text += &format!("[[disk]]\npath = {disk:?}\n");
        }
        for disk in &self.read_only_disks {
            text += &format!("[[disk]]\npath = {disk:?}\nread_only = true\n");
        }
        for tap in &self.taps {
            text += &format!("[[net]]\ntap = {tap:?}\n");
        }
        if let Some(lines) = &self.cloud_init {
            text += &format!("[cloud_init]\n{lines}");
        }
        if let Some(lines) = &self.vsock {
            text += &format!("[vsock]\n{lines}");
        }
        Ok(text)
    }

    /// What it boots, and the disk that it boots from.
    fn boot(&self) -> Result<String> {
        let mut text = "[boot]\n".to_owned();
        // The kernel's messages would only mingle with toucher's answers; its warnings are wanted.
        let mut console = "console=ttyS0 reboot=acpi panic=-1".to_owned();
        if !self.balloon_driver {
            console += " modprobe.blacklist=virtio_balloon";
        }
        if let Some(words) = &self.kernel_words {
            console += &format!(" {words}");
        }
        match &self.runs {
            Runs::Toucher(version) => {
                let (kernel, initrd) = toucher_image(*version)?;
                text += &format!("kernel = {kernel:?}\ninitrd = {initrd:?}\ncmdline = \"{console} quiet\"\n");
            }
            Runs::Kernel { kernel, initrd } => {
                text += &format!("kernel = {kernel:?}\ninitrd = {initrd:?}\ncmdline = \"{console} quiet\"\n");
            }
            Runs::Model => {
                // The model needs no privilege, and containers, where it serves best, lack parts of
                // the jail.
                text += "model = true\n[jail]\nallow_missing = [\"uid\", \"filesystem\", \"seccomp\", \"cgroup\"]\n";
            }
            Runs::Debian { kernel, initrd, disk } => {
                text += &format!(
                    "kernel = {kernel:?}\ninitrd = {initrd:?}\ncmdline = \"{console} root=/dev/vda\"\n"
                );
                text += &self.boot_disk(disk);
            }
            Runs::Disk(disk) => {
                text += &format!("from = \"disk\"\nappend = \"{console}\"\n{}", self.boot_disk(disk));
            }
        }
        Ok(text)
    }

    /// The lines of the disk that it boots from.
    fn boot_disk(&self, path: &Path) -> String {
        let RateLimit { operations, bandwidth, burst } = self.boot_disk_rate;
        let iops = operations.map_or_else(String::new, |iops| format!("iops = {iops}\n"));
        let bandwidth =
            bandwidth.map_or_else(String::new, |bytes| format!("bandwidth = {:?}\n", bytes.to_string()));
        // As `plimsoll image` takes names.
        let format = if path.extension() == Some("qcow2".as_ref()) { "format = \"qcow2\"\n" } else { "" };
        let burst = if burst == Burst::default() { String::new() } else { format!("burst = \"{burst}\"\n") };
        format!("[[disk]]\npath = {path:?}\n{format}{iops}{bandwidth}{burst}")
    }

    /// The same for the API.
    pub fn json(&self) -> Result<String> {
        let read = VmDefinition::from_toml(&self.text()?, Path::new("/"))?;
        serde_json::to_string(&read).context("writing a definition")
    }
}

/// Kernel and initrd of guests with `toucher`: the lab carries them, elsewhere they are built.
pub fn toucher_image(version: Version) -> Result<(PathBuf, PathBuf)> {
    if in_lab() {
        let directory = PathBuf::from(format!("/guests/{version}"));
        return Ok((directory.join("vmlinuz"), directory.join("initrd")));
    }
    let image = guest::build(version, &workspace::build()?)?;
    Ok((image.kernel(), image.initrd()))
}

#[cfg(test)]
mod tests {
    use plimsoll_protocol::definition::{BootFrom, ImageFormat};

    use super::*;

    #[test]
    fn what_is_written_is_what_the_daemon_reads() {
        let mut definition = Definition::new("a", Bytes::mib(256), Runs::Model);
        definition.reservation = Bytes::mib(32);
        definition.reports_free_pages = false;
        definition.taps.push("tap0".into());
        definition.disks.push("/d".into());
        definition.read_only_disks.push("/r".into());
        definition.sharing = Some("prod".to_owned());
        definition.bus = Bus::Pci;
        definition.vsock = Some("connections = 7\n".to_owned());
        let read = VmDefinition::from_toml(&definition.text().unwrap(), "/".as_ref()).unwrap();
        assert!(read.boot.model && !read.balloon.free_page_reporting);
        assert_eq!((read.size, read.reservation, read.bus), (Bytes::mib(256), Bytes::mib(32), Bus::Pci));
        assert_eq!(read.memory.sharing.to_string(), "prod");
        assert_eq!(read.vsock.map(|vsock| vsock.connections), Some(7));
        assert_eq!((read.nets.len(), read.disks.len(), read.disks[1].read_only), (1, 2, true));
    }

    #[test]
    fn a_disk_that_is_booted_is_the_first() {
        let mut definition = Definition::new("a", Bytes::mib(256), Runs::Disk("/boots".into()));
        definition.disks.push("/d".into());
        definition.cloud_init = Some("hostname = \"web\"\n".to_owned());
        let read = VmDefinition::from_toml(&definition.text().unwrap(), "/".as_ref()).unwrap();
        assert_eq!(read.cloud_init.unwrap().hostname.unwrap(), "web");
        assert_eq!(read.boot.from, Some(BootFrom::Disk));
        assert!(read.boot.append.unwrap().contains("console=ttyS0"));
        assert_eq!(
            (read.disks[0].path.as_path(), read.disks[0].format),
            (Path::new("/boots"), ImageFormat::Raw)
        );
    }

    #[test]
    fn the_name_of_a_disk_says_its_format() {
        let [kernel, initrd, disk] = ["/k", "/i", "/d.qcow2"].map(PathBuf::from);
        let definition = Definition::new("a", Bytes::mib(256), Runs::Debian { kernel, initrd, disk });
        let read = VmDefinition::from_toml(&definition.text().unwrap(), "/".as_ref()).unwrap();
        assert_eq!(read.disks[0].format, ImageFormat::Qcow2);
    }
}
