//! One VM's process.
pub mod virtio;
