//! What a Linux system's first process does: mounting, loading modules, reaping.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, WaitOptions};

/// Mounts `source` of type `kind` at `target`, which is made when missing.
pub(super) fn mount_at(source: &str, target: &str, kind: &str, options: &str) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("making {target}"))?;
    let options = std::ffi::CString::new(options).context("mount options with a zero byte")?;
    mount(source, target, kind, MountFlags::empty(), options.as_c_str())
        .with_context(|| format!("mounting {source} ({kind}) at {target}"))
}

/// Loads the kernel module in `file` with `options`. One that is there already is fine.
pub(super) fn load_module(file: &Path, options: &str) -> Result<()> {
    let module = File::open(file).with_context(|| format!("opening {}", file.display()))?;
    let options = std::ffi::CString::new(options).context("module options with a zero byte")?;
    match rustix::system::finit_module(&module, &options, 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("loading {}", file.display())),
    }
}

/// Reaps children, its own and those that others left behind, until `child` ends.
pub(super) fn reap_until(child: Pid) -> io::Result<()> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if pid == child => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Turns the lab off.
pub(super) fn power_off() -> io::Error {
    let refused = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    // QEMU runs with -no-reboot: a restart ends it, and needs no ACPI driver.
    refused.map_or_else(io::Error::from, |()| io::Error::other("the restart did not happen"))
}
