//! The QEMU process that is the lab's hardware. It never outlives this program.
//!
//! QEMU's emulation of SVM has races between its threads: those of several emulated processors
//! ([`arguments`]), and those of its timers with one, since `helper_vmrun` sets `interrupt_request`
//! without the global lock ([`crate::lab`] wakes it for that).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use preflight::program;

use crate::config::Config;
use crate::prctl;

/// What QEMU boots.
pub(crate) struct Boot<'a> {
    /// The bzImage.
    pub(crate) kernel: &'a std::path::Path,
    /// The first file system.
    pub(crate) initramfs: &'a std::path::Path,
    /// A file system image that becomes the first disk. What the lab writes to it is thrown away.
    pub(crate) scratch: &'a File,
    /// Another that becomes the second disk.
    pub(crate) share: Option<&'a File>,
}

impl<'a> Boot<'a> {
    fn disks(&self) -> impl Iterator<Item = &'a File> {
        std::iter::once(self.scratch).chain(self.share)
    }
}

/// A running QEMU, killed on drop. The kernel kills it as well when the thread that started it ends
/// in whatever way: start it from a thread that lives as long as the lab.
pub(crate) struct Qemu {
    child: Child,
    console: File,
    messages: File,
}

impl Qemu {
    /// Starts it. The returned stream is the outer end of the agent's port.
    pub(crate) fn start(config: &Config, boot: &Boot<'_>) -> Result<(Self, UnixStream)> {
        let program =
            program::find("qemu-system-x86_64").context("QEMU not found: install qemu-system-x86")?;
        let (ours, theirs) = UnixStream::pair().context("making the lab's port")?;
        let console = tempfile::tempfile().context("making the console's file")?;
        let messages = tempfile::tempfile().context("making the file for QEMU's messages")?;
        let mut command = Command::new(program);
        command.args(arguments(config, boot, theirs.as_raw_fd()));
        command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(messages.try_clone()?);
        let mut inherited = vec![theirs.as_raw_fd()];
        inherited.extend(boot.disks().map(AsRawFd::as_raw_fd));
        prctl::die_with_parent(&mut command, inherited);
        let child = command.spawn().context("starting qemu-system-x86_64")?;
        Ok((Self { child, console, messages }, ours))
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that the lab's kernel has written to its console.
    pub(crate) fn console(&self) -> io::Result<String> {
        contents(&self.console)
    }

    /// Everything that QEMU itself has complained of.
    pub(crate) fn messages(&self) -> io::Result<String> {
        contents(&self.messages)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Already dead is as good; the wait afterwards cannot block on a killed child.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn contents(file: &File) -> io::Result<String> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).replace('\r', ""))
}

fn arguments(config: &Config, boot: &Boot<'_>, port: i32) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
    // `max` has everything that QEMU can emulate: SVM and nested paging are what the lab is for.
    //
    // One processor. With two, QEMU 7.2 and 10.0 now and then let the host's kernel take a page
    // fault between loading a guest's state and leaving it: it then runs with the guest's GS base,
    // faults in its fault handler until the stack of the vCPU's thread is used up, and the double
    // fault counts as the guest's own ("the guest triple-faulted"), or as a reset of the whole lab.
    // QEMU before 8.1 may also run code that another processor has just replaced. The machine's own
    // merging of equal pages, where it is on, is kept out of what is measured inside.
    let machine = "q35,usb=off,smm=off,hpet=off,mem-merge=off";
    add(&["-accel", "tcg,tb-size=1024", "-machine", machine, "-cpu", "max"]);
    add(&["-smp", "1", "-m", &format!("{}K", config.memory.0 >> 10)]);
    add(&["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    add(&["-serial", "file:/dev/stdout"]);
    add(&["-kernel", &boot.kernel.display().to_string(), "-initrd", &boot.initramfs.display().to_string()]);
    let npt = if config.npt { "1" } else { "0" };
    // The console stays quiet (a serial line is slow in emulation) but for warnings and notices,
    // among them which system call ended a process; a panic ends QEMU at once.
    let kernel = "console=ttyS0 quiet loglevel=6 panic=-1 mitigations=off random.trust_cpu=on tsc=reliable \
        cryptomgr.notests";
    // QEMU hands our own time-stamp counter through. A kernel that measures its speed while we are
    // busy gets it wrong by factors, and its clock, and every deadline in the lab, runs that much
    // too fast.
    let tsc = super::rdtsc::khz();
    add(&["-append", &format!("{kernel} tsc_early_khz={tsc} plimsoll.npt={npt}")]);
    add(&["-device", "virtio-serial-pci", "-chardev", &format!("socket,id=agent,fd={port}")]);
    add(&["-device", "virtserialport,chardev=agent,name=plimsoll.agent", "-device", "virtio-rng-pci"]);
    let mut network = "user,id=net".to_owned();
    for (outside, inside) in &config.forward {
        network += &format!(",hostfwd=tcp:127.0.0.1:{outside}-:{inside}");
    }
    add(&["-netdev", &network, "-device", "virtio-net-pci,netdev=net,romfile="]);
    for disk in boot.disks() {
        // The file has no name any more, and QEMU's locks would see its second look at it as
        // another program's.
        let file = format!("/proc/self/fd/{}", disk.as_raw_fd());
        add(&["-drive", &format!("file={file},if=virtio,format=raw,cache=unsafe,file.locking=off")]);
    }
    arguments
}
