use std::fmt;

use serde::{Deserialize, Serialize};

/// How a guest finds its disks, interfaces and other devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Bus {
    /// Each in a window of addresses with an interrupt line, which ACPI names (virtio-mmio).
    #[default]
    Mmio,
    /// As functions of a PCI bus with interrupts by messages (virtio-pci).
    Pci,
}

impl Bus {
    /// Most disks of a VM, with or without `vsock`.
    pub const fn max_disks(self, vsock: bool) -> usize {
        match (self, vsock) {
            // With interfaces, balloon and random numbers, 14 interrupt lines. The vsock device
            // takes that of a disk.
            (Self::Mmio, true) => 7,
            (Self::Mmio, false) => 8,
            (Self::Pci, _) => 32,
        }
    }

    /// Most network interfaces of a VM.
    pub const fn max_nets(self) -> usize {
        match self {
            Self::Mmio => 4,
            Self::Pci => 8,
        }
    }
}

impl fmt::Display for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mmio => "mmio",
            Self::Pci => "pci",
        })
    }
}
