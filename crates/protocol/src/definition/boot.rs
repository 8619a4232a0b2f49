use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a VM runs: a kernel, or a model of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// A bzImage. Required unless `model` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    /// An initial ram disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    #[serde(default = "default_cmdline", skip_serializing_if = "is_default_cmdline")]
    pub cmdline: String,
    /// No guest kernel: a host thread touches the VM's memory through the same pmap and obeys the
    /// toucher's commands on the console. For hosts without usable KVM; never a real guest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub model: bool,
}

fn default_cmdline() -> String {
    "console=ttyS0 reboot=acpi panic=-1".to_owned()
}

fn is_default_cmdline(cmdline: &String) -> bool {
    *cmdline == default_cmdline()
}
