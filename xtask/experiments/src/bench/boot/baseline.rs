//! The baseline: QEMU's microvm machine, as Debian builds it.
//!
//! The lab has no libraries and no Debian, so [`collect`] brings the program with all that it
//! opens, and [`command()`] starts it there. The machine is made as close to ours as QEMU lets it
//! be: the same kernel, initial ram disk, command line, memory and devices, virtio over MMIO
//! announced by ACPI, and only the legacy devices that the guest would otherwise wait for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use plimsoll_lab::command;
use preflight::program;

use super::guest::Guest;

/// Where the lab sees what [`collect`] collected.
const PLACE: &str = "/share";
const PROGRAM: &str = "qemu-system-x86_64";
const LOADER: &str = "ld-linux-x86-64.so.2";

/// The firmware of the microvm machine, and where Debian's QEMU looks for it, in that order.
const FIRMWARE: &str = "bios-microvm.bin";
const FIRMWARE_PLACES: [&str; 2] = ["/usr/share/qemu", "/usr/share/seabios"];

/// Copies QEMU, its libraries and its firmware to `directory`. Returns QEMU's version, as it says
/// it.
pub(super) fn collect(directory: &Path) -> Result<String> {
    let program = program::find(PROGRAM).context("QEMU not found: install qemu-system-x86")?;
    let firmware =
        FIRMWARE_PLACES.iter().map(|place| Path::new(place).join(FIRMWARE)).find(|path| path.is_file());
    let firmware = firmware.with_context(|| format!("{FIRMWARE} not found: install qemu-system-data"))?;
    let listed = output(Command::new("ldd").arg(&program))?;
    for file in libraries(&listed).iter().chain([&program, &firmware]) {
        let name = file.file_name().with_context(|| format!("{} is no file", file.display()))?;
        let place = directory.join(name);
        fs::copy(file, &place)
            .with_context(|| format!("copying {} to {}", file.display(), place.display()))?;
    }
    ensure!(directory.join(LOADER).is_file(), "{} needs no {LOADER}: it is not Debian's", program.display());
    let version = output(Command::new(&program).arg("--version"))?;
    Ok(version.lines().next().unwrap_or_default().to_owned())
}

fn output(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&command::output(command)?).into_owned())
}

/// The files in ldd's answer.
fn libraries(listed: &str) -> Vec<PathBuf> {
    let file = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    listed.lines().filter_map(file).collect()
}

/// QEMU in the lab, with `guest` in it and the console in the file `console`.
pub(super) fn command(guest: &Guest, console: &Path) -> Command {
    let place = Path::new(PLACE);
    let mut command = Command::new(place.join(LOADER));
    command.arg("--library-path").arg(place).arg(place.join(PROGRAM)).arg("-L").arg(place);
    // Without a PCI bus, USB, option ROMs and a second interrupt controller, none of which we have
    // either. With a clock chip: its absence, which this machine does not announce, costs the guest
    // seconds of waiting.
    let machine = "microvm,accel=kvm,acpi=on,pcie=off,usb=off,ioapic2=off,x-option-roms=off,\
        isa-serial=on,rtc=on,pit=on,pic=on";
    command
        .args(["-M", machine, "-cpu", "host", "-smp", "1"])
        .arg("-m")
        .arg(format!("{}K", guest.size.0 >> 10));
    command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none"]);
    command.arg("-kernel").arg(&guest.kernel).arg("-initrd").arg(&guest.initrd);
    command.args(["-append", &guest.cmdline, "-serial", &format!("file:{}", console.display())]);
    // Without this the devices are those of before virtio 1.0.
    command.args(["-global", "virtio-mmio.force-legacy=false"]);
    let disk = guest.disk.display();
    command.args(["-drive", &format!("if=none,id=disk,format=raw,readonly=on,file={disk}")]);
    command.args(["-device", "virtio-blk-device,drive=disk"]);
    command.args(["-device", "virtio-balloon-device,deflate-on-oom=on,free-page-reporting=on"]);
    command.args(["-device", "virtio-rng-device"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_files_and_the_vdso_is_none() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibz.so.1 => /lib/x/libz.so.1 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x/libz.so.1", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries(listed), expected);
    }
}
