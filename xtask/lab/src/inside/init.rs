//! The lab's first process: it makes a host of the bare kernel, starts the agent and reaps orphans.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;

use super::linux_boot::{load_module, mount_at, power_off, reap_until};

const MODULES: &str = "/lib/lab-modules";

/// Runs as process 1. Comes back only with an error, after which the kernel panics and QEMU ends.
pub fn main() -> Result<()> {
    mounts()?;
    modules()?;
    settings()?;
    network()?;
    disks()?;
    let agent = Command::new("/bin/xtask")
        .args(["inside", "agent"])
        .env_clear()
        .envs([("PATH", "/bin"), ("HOME", "/root"), ("TERM", "xterm"), ("PLIMSOLL_LAB", "1")])
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .context("starting the lab's agent")?;
    reap_until(Pid::from_child(&agent)).context("waiting for the lab's agent")?;
    Err(power_off()).context("turning the lab off")
}

fn mounts() -> Result<()> {
    mount_at("devtmpfs", "/dev", "devtmpfs", "mode=0755")?;
    mount_at("proc", "/proc", "proc", "")?;
    mount_at("sysfs", "/sys", "sysfs", "")?;
    mount_at("cgroup2", "/sys/fs/cgroup", "cgroup2", "")?;
    mount_at("devpts", "/dev/pts", "devpts", "mode=0620,ptmxmode=0666")?;
    for place in ["/dev/shm", "/run"] {
        mount_at("tmpfs", place, "tmpfs", "mode=1777")?;
    }
    Ok(())
}

fn modules() -> Result<()> {
    let npt = if command_line("plimsoll.npt=")?.as_deref() == Some("0") { "npt=0" } else { "npt=1" };
    let mut files: Vec<PathBuf> = fs::read_dir(MODULES)?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files {
        let is_kvm_amd = file.to_string_lossy().ends_with("kvm_amd.ko");
        load_module(&file, if is_kvm_amd { npt } else { "" })?;
    }
    // The module turns the option off by itself where it cannot have it: the lab must be what was
    // asked for.
    let found = fs::read_to_string("/sys/module/kvm_amd/parameters/npt").context("kvm_amd is not loaded")?;
    let found = if matches!(found.trim(), "1" | "Y") { "npt=1" } else { "npt=0" };
    ensure!(found == npt, "kvm_amd runs with {found}, not {npt}");
    Ok(())
}

fn settings() -> Result<()> {
    // The controllers that hosts of virtual machines use; systemd does this elsewhere.
    let controllers = "+memory +cpu +pids +io";
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", controllers).context("enabling cgroup controllers")?;
    fs::write("/proc/sys/kernel/hostname", "lab").context("naming the lab")
}

fn network() -> Result<()> {
    // The addresses are those of QEMU's user network.
    for command in [
        "ip link set lo up",
        "ip link set eth0 up",
        "ip addr add 10.0.2.15/24 dev eth0",
        "ip route add default via 10.0.2.2",
    ] {
        let status = Command::new("/bin/busybox").args(command.split(' ')).stdin(Stdio::null()).status();
        ensure!(status.context("starting busybox ip")?.success(), "{command} failed");
    }
    fs::write("/etc/resolv.conf", "nameserver 10.0.2.3\n").context("naming the name server")
}

fn disks() -> Result<()> {
    // What is made here is on a disk, as on any host: VMs can swap to it.
    mount_at("/dev/vda", "/tmp", "ext4", "")?;
    fs::set_permissions("/tmp", fs::Permissions::from_mode(0o1777)).context("opening /tmp to everybody")?;
    if fs::exists("/dev/vdb")? {
        mount_at("/dev/vdb", "/share", "ext4", "")?;
    }
    Ok(())
}

/// The value after `key` on the kernel's command line.
fn command_line(key: &str) -> Result<Option<String>> {
    let line = fs::read_to_string("/proc/cmdline")?;
    Ok(line.split_whitespace().find_map(|word| word.strip_prefix(key)).map(str::to_owned))
}
