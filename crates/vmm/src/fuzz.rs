//! What a guest can reach, as functions of any bytes: the targets of `cargo xtask fuzz`.
//!
//! Each panics where the code under test broke a rule.

/// The disk, with and without an io_uring.
pub fn virtio_block(input: &[u8]) {
    crate::virtio::fuzz::block(input);
}

/// The network interface.
pub fn virtio_net(input: &[u8]) {
    crate::virtio::fuzz::net(input);
}

/// The source of random numbers.
pub fn virtio_entropy(input: &[u8]) {
    crate::virtio::fuzz::entropy(input);
}

/// The balloon.
pub fn virtio_balloon(input: &[u8]) {
    crate::virtio::fuzz::balloon(input);
}

/// Sockets between guest and host.
pub fn virtio_vsock(input: &[u8]) {
    crate::virtio::fuzz::vsock(input);
}

/// Random numbers or a disk, on PCI.
pub fn virtio_pci(input: &[u8]) {
    crate::virtio::fuzz::pci(input);
}

/// The kernel that the guest boots.
pub fn boot(input: &[u8]) {
    crate::boot::fuzz::kernel(input);
}

/// The serial port, and the output that goes to the console's log.
pub fn console(input: &[u8]) {
    crate::console::fuzz::console(input);
}
