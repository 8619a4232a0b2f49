//! The paper's experiments as the simulator of `plimsoll plan` sees them: the scenarios are those
//! that `plimsoll plan` ships.

mod fig7;
mod fig8;
mod report;

use anyhow::Result;

use self::report::Report;

/// A figure that can be simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    /// The tax on idle memory.
    Fig7,
    /// Five VMs on a host of 1 GB.
    Fig8,
}

/// Runs a figure's scenario.
pub(super) fn report(figure: Figure) -> Result<Report> {
    match figure {
        Figure::Fig7 => fig7::report(),
        Figure::Fig8 => fig8::report(),
    }
}
