//! What the lab is made of: QEMU as its hardware ([`qemu`]), its disks ([`disk`]) and its first
//! file system ([`image`]).

pub(crate) mod disk;
pub(crate) mod image;
pub(crate) mod qemu;
mod rdtsc;
