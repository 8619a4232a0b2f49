use std::fmt;

use serde::{Deserialize, Serialize};

/// How the VM's process is confined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Jail {
    /// Parts of the jail that the VM may run without where the host does not have them. A missing
    /// part that is not named here keeps the VM from starting.
    pub allow_missing: Vec<JailPart>,
}

/// A part of the jail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum JailPart {
    /// A user and group of the VM's own.
    Uid,
    /// A closed view of the file system.
    Filesystem,
    /// A filter of system calls.
    Seccomp,
    /// A control group of its own (cgroup v2).
    Cgroup,
}

impl JailPart {
    /// How many parts there are.
    pub const COUNT: usize = 4;
}

impl fmt::Display for JailPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Uid => "uid",
            Self::Filesystem => "filesystem",
            Self::Seccomp => "seccomp",
            Self::Cgroup => "cgroup",
        })
    }
}
