//! Tap devices, through the ioctl interface of `/dev/net/tun`.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, bail, ensure};

/// Attaches to the tap device `name`, which must exist: frames come and go with a virtio-net
/// header.
///
/// # Errors
/// Why it cannot be attached to, and what to do.
pub(super) fn open(name: &str) -> anyhow::Result<OwnedFd> {
    let sysfs = Path::new("/sys/class/net").join(name);
    ensure!(
        sysfs.exists(),
        "there is no such device: make it with ip tuntap add mode tap {name}, and ip link set {name} up"
    );
    ensure!(sysfs.join("tun_flags").exists(), "it is a network interface of another kind");
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .context("/dev/net/tun cannot be opened")?;
    attach(&tun, name)?;
    Ok(tun.into())
}

fn attach(tun: &File, name: &str) -> anyhow::Result<()> {
    // The definition's check leaves at most 15 bytes, and the last byte stays zero.
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let request = libc::ifreq {
        ifr_name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: libc::c_short::try_from(flags)? },
    };
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is and which outlives the call.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw const request) };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EBUSY) => bail!("it is busy: another VM or program uses it"),
        Some(libc::EPERM) => {
            bail!("no right to use it: run plimsolld as root, or give the device to its user")
        }
        Some(libc::EINVAL) => bail!("it is no tap device of a single queue"),
        _ => Err(error).context("cannot be attached"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_tap_is_told_apart() {
        assert!(open("nosuchtap0").unwrap_err().to_string().contains("ip tuntap"));
        assert!(open("lo").unwrap_err().to_string().contains("another kind"));
    }
}
