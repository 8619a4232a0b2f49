//! Which virtual host to boot.

use std::path::PathBuf;

use clap::ValueEnum;
use plimsoll_units::Bytes;

use crate::kernel::Version;

/// What virtual host to make.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its kernel.
    pub kernel: Version,
    /// Whether `kvm-amd` uses nested paging; without it KVM builds shadow page tables.
    pub npt: bool,
    /// Its memory.
    pub memory: Bytes,
    /// A directory of the outside, of which the lab sees a copy at `/share`.
    pub share: Option<PathBuf>,
    /// TCP ports: of this machine's loopback, and the port in the lab that each leads to.
    pub forward: Vec<(u16, u16)>,
}

impl Default for Config {
    fn default() -> Self {
        let (kernel, memory) = (Version::V6_12, Bytes::mib(3 << 10));
        Self { kernel, npt: true, memory, share: None, forward: Vec::new() }
    }
}

impl Config {
    /// The configuration in a few words, for people.
    pub fn describe(&self) -> String {
        format!("host {}, nested paging {}", self.kernel, if self.npt { "on" } else { "off" })
    }
}

/// An option that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}
