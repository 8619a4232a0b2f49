//! What the measurement says: in words, and as JSON.

use std::fmt;

use anyhow::{Context, Result};
use plimsoll_lab::Switch;
use plimsoll_units::Bytes;
use serde::Serialize;

use super::arguments::BootArgs;
use super::inside::{SIZE, Sample};
use crate::stats::{Spread, median};

/// What the goal allows a VMM to hold outside guest memory.
const GOAL: Bytes = Bytes::mib(8);

/// What the figures leave open.
const DOES_NOT_SHOW: &str = "The lab's processor is emulated: a processor's exits, page faults and copies cost other \
    multiples of plain instructions than on hardware, so only the ratio means anything, and that roughly. One VM starts \
    at a time on a host that is otherwise idle, with all files in memory. Memory that the kernel keeps for each VM \
    (page tables, KVM's structures) and the daemon's own are in nobody's figure. QEMU is Debian's full build; a QEMU \
    configured for microvm alone would be smaller.";

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    kernel: String,
    host_kernel: String,
    npt: bool,
    cmdline: String,
    baseline: String,
    size_bytes: Bytes,
    runs: usize,
    /// From the start of our VMM's process.
    ours_ms: Spread,
    /// From the start of `plimsoll run`: the command, the daemon and our VMM.
    ours_total_ms: Spread,
    qemu_ms: Spread,
    /// Ours to QEMU's, of starts that followed each other.
    ratio: f64,
    ratio_spread: Spread,
    ratio_total: f64,
    ours_rss_outside_bytes: u64,
    qemu_rss_outside_bytes: u64,
    ours_private_outside_bytes: u64,
    qemu_private_outside_bytes: u64,
    not_slower: bool,
    within_8_mib: bool,
    does_not_show: &'static str,
}

impl Report {
    /// Sums up `pairs` of ours and the baseline.
    pub(super) fn new(arguments: &BootArgs, baseline: String, pairs: &[(Sample, Sample)]) -> Result<Self> {
        let of = |figure: &dyn Fn(&(Sample, Sample)) -> f64, digits| {
            Spread::of(pairs.iter().map(figure), digits).context("nothing was measured")
        };
        let bytes =
            |figure: &dyn Fn(&(Sample, Sample)) -> Bytes| median(pairs.iter().map(|pair| figure(pair).0));
        let ratio_spread = of(&|(ours, qemu)| ours.process.div_duration_f64(qemu.process), 3)?;
        let ours_rss_outside_bytes = bytes(&|(ours, _)| ours.outside);
        Ok(Self {
            kernel: arguments.kernel.to_string(),
            host_kernel: arguments.host_kernel.to_string(),
            npt: arguments.npt == Switch::On,
            cmdline: arguments.cmdline.clone(),
            baseline,
            size_bytes: SIZE,
            runs: pairs.len(),
            ours_ms: of(&|(ours, _)| ours.process.as_secs_f64() * 1e3, 1)?,
            ours_total_ms: of(&|(ours, _)| ours.command.as_secs_f64() * 1e3, 1)?,
            qemu_ms: of(&|(_, qemu)| qemu.process.as_secs_f64() * 1e3, 1)?,
            ratio: ratio_spread.median,
            ratio_spread,
            ratio_total: of(&|(ours, qemu)| ours.command.div_duration_f64(qemu.command), 3)?.median,
            ours_rss_outside_bytes,
            qemu_rss_outside_bytes: bytes(&|(_, qemu)| qemu.outside),
            ours_private_outside_bytes: bytes(&|(ours, _)| ours.private),
            qemu_private_outside_bytes: bytes(&|(_, qemu)| qemu.private),
            not_slower: ratio_spread.median <= 1.0,
            within_8_mib: ours_rss_outside_bytes <= GOAL.0,
            does_not_show: DOES_NOT_SHOW,
        })
    }

    /// Whether ours is no slower and small enough.
    pub(super) fn meets_goals(&self) -> bool {
        self.not_slower && self.within_8_mib
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, time: Spread, memory: Option<(u64, u64)>| {
            let Spread { median, min, max } = time;
            write!(f, "{name:<24} {median:>8.0} {:>18}", format!("{min:.0} to {max:.0}"))?;
            if let Some((outside, private)) = memory {
                write!(f, " {:>14} {:>14}", mib(outside), mib(private))?;
            }
            writeln!(f)
        };
        writeln!(
            f,
            "Guest {} with {} and one processor, {:?}; host {}, nested paging {}; {} starts of each, by turns.",
            self.kernel,
            self.size_bytes,
            self.cmdline,
            self.host_kernel,
            if self.npt { "on" } else { "off" },
            self.runs
        )?;
        writeln!(f, "Baseline: {}, microvm machine.\n", self.baseline)?;
        writeln!(f, "{:24} {:>8} {:>18} {:>14} {:>14}", "", "first", "spread of", "resident", "of which")?;
        writeln!(
            f,
            "{:24} {:>8} {:>18} {:>14} {:>14}",
            "", "line, ms", "first line, ms", "outside guest", "private"
        )?;
        let ours = (self.ours_rss_outside_bytes, self.ours_private_outside_bytes);
        let qemu = (self.qemu_rss_outside_bytes, self.qemu_private_outside_bytes);
        row(f, "plimsoll-vmm", self.ours_ms, Some(ours))?;
        row(f, "  from plimsoll run on", self.ours_total_ms, None)?;
        row(f, "qemu-system-x86_64", self.qemu_ms, Some(qemu))?;
        let Spread { median, min, max } = self.ratio_spread;
        writeln!(f, "\nTime, ours to QEMU's, of each pair: median {median:.3}, from {min:.3} to {max:.3}.")?;
        let yes = |met: bool| if met { "yes" } else { "NO" };
        writeln!(
            f,
            "Goals: not slower: {}; at most {GOAL} outside guest memory: {}.",
            yes(self.not_slower),
            yes(self.within_8_mib)
        )?;
        writeln!(f, "\nWhat this does not show: {}", self.does_not_show)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people, with one digit after the point")]
fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
