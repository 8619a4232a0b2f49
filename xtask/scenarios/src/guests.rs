//! What guests are in scenarios.

use plimsoll_lab::kernel::Version;
use plimsoll_operate::definition::Runs;

/// What guests are, in scenarios that leave it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guests {
    /// Debian kernels with `toucher`.
    Kernels,
    /// Threads of the VMM.
    Models,
}

impl Guests {
    /// What a guest runs; `version` is the kernel where it is one.
    pub fn run(self, version: Version) -> Runs {
        match self {
            Self::Kernels => Runs::Toucher(version),
            Self::Models => Runs::Model,
        }
    }
}
