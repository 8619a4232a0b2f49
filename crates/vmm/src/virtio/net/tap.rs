//! The `ioctl`s of Linux's tap devices (`linux/if_tun.h`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::bit;

/// Checksums may be left to the reader; segments of TCP over IPv4 and IPv6 may come as one.
const TUN_F_CSUM: libc::c_ulong = 1;
const TUN_F_TSO4: libc::c_ulong = 2;
const TUN_F_TSO6: libc::c_ulong = 4;
/// With a reader that takes no offloads the kernel does the work.
const NEEDED_FLAGS: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// Whether `fd` is a tap device that frames packets as this device wants.
pub(super) fn check(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: an ifreq is plain data, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: TUNGETIFF writes one ifreq to the pointer.
    result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    // SAFETY: TUNGETIFF has filled in the flags.
    let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    if flags & NEEDED_FLAGS == NEEDED_FLAGS {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "the tap device has flags {flags:#x}; make it with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR ({NEEDED_FLAGS:#x})"
        ),
    ))
}

/// Sets the length of the virtio header before each packet.
pub(super) fn set_header_length(fd: &OwnedFd, length: usize) -> io::Result<()> {
    let length = libc::c_int::try_from(length).map_err(io::Error::other)?;
    // SAFETY: TUNSETVNETHDRSZ reads one int from the pointer.
    result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const length) })
}

/// Lets the kernel leave to the guest the offloads that its `features` accept.
pub(super) fn set_offloads(fd: &OwnedFd, features: u64) -> io::Result<()> {
    let pairs = [(bit::GUEST_CSUM, TUN_F_CSUM), (bit::GUEST_TSO4, TUN_F_TSO4), (bit::GUEST_TSO6, TUN_F_TSO6)];
    let wanted = pairs
        .iter()
        .filter(|(feature, _)| features & feature != 0)
        .map(|(_, flag)| flag)
        .sum::<libc::c_ulong>();
    // Segmentation leaves checksums open as well: without them the kernel takes no other.
    let offloads = if wanted & TUN_F_CSUM == 0 { 0 } else { wanted };
    // SAFETY: TUNSETOFFLOAD takes its argument as a value.
    result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) })
}

fn result(returned: libc::c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    /// A new tap device with these flags, which is gone when it is closed; `None` where this
    /// machine gives none.
    pub(in super::super) fn create(flags: libc::c_int) -> Option<OwnedFd> {
        let device = std::fs::File::options().read(true).write(true).open("/dev/net/tun").ok()?;
        // SAFETY: an ifreq is plain data, for which zeros are a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap();
        // SAFETY: TUNSETIFF reads and writes one ifreq.
        result(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) }).ok()?;
        Some(device.into())
    }

    #[test]
    fn a_tap_device_without_the_header_is_refused() {
        let Some(tap) = create(libc::IFF_TAP | libc::IFF_NO_PI) else {
            eprintln!("SKIPPED: no tap device here");
            return;
        };
        assert!(check(&tap).unwrap_err().to_string().contains("IFF_VNET_HDR"));
        let tap = create(NEEDED_FLAGS).unwrap();
        check(&tap).unwrap();
        set_header_length(&tap, 12).unwrap();
        set_offloads(&tap, bit::GUEST_CSUM | bit::GUEST_TSO4 | bit::GUEST_TSO6).unwrap();
        set_offloads(&tap, bit::GUEST_TSO4).unwrap();
    }
}
