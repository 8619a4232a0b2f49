//! What the demo ends with.

use plimsoll_units::Bytes;
use serde::Serialize;

/// The demo in numbers. Its fields are an interface: scripts read them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Guests.
    pub(crate) vms: usize,
    /// Their sizes, added up.
    pub(crate) size_bytes: Bytes,
    /// Machine memory that they shared.
    pub(crate) budget_bytes: Bytes,
    /// The most that the ledger ever had granted and charged.
    pub(crate) peak_ledger_bytes: Bytes,
    /// The most that the kernel ever accounted to guest memory and pools of the VMMs (smaps).
    pub(crate) peak_kernel_bytes: Bytes,
    /// The most that was in balloons.
    pub(crate) ballooned_peak_bytes: Bytes,
    /// Patterns read back and found right.
    pub(crate) verified_bytes: Bytes,
    /// Pages that were not what their guest had written.
    pub(crate) lost_writes: u64,
    /// Processes killed for memory, by the host's kernel and by the guests'.
    pub(crate) oom_kills: u64,
    /// From the first guest's start to the last one's end.
    pub(crate) seconds: f64,
    /// Whether all of it held.
    pub(crate) ok: bool,
}

impl Report {
    /// For people.
    pub(crate) fn text(&self) -> String {
        #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
        let ratio = self.size_bytes.0 as f64 / self.budget_bytes.0 as f64;
        format!(
            "{} guests with {} of memory ran on a budget of {} ({ratio:.1} times overcommitted) for {:.0} s.\n\
             ledger    peak {}\nkernel    peak {}\nballoons  peak {}\n\
             patterns  {} verified, {} pages lost\nOOM kills {}\n{}",
            self.vms,
            self.size_bytes,
            self.budget_bytes,
            self.seconds,
            self.peak_ledger_bytes,
            self.peak_kernel_bytes,
            self.ballooned_peak_bytes,
            self.verified_bytes,
            self.lost_writes,
            self.oom_kills,
            if self.ok { "All of it held." } else { "IT DID NOT HOLD." },
        )
    }
}
