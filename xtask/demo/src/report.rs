//! What the demo ends with.

use plimsoll_units::Bytes;
use serde::Serialize;

/// The demo in numbers. Its fields are an interface: scripts read them.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Guests.
    pub(crate) vms: usize,
    /// Their sizes, added up.
    pub size_bytes: Bytes,
    /// Machine memory that they shared.
    pub budget_bytes: Bytes,
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
    /// From the start of the command, what it built included, until the first guest ran.
    pub(crate) ready_seconds: f64,
    /// How long each guest's turn took, in the order of turns.
    pub(crate) turns_seconds: Vec<f64>,
    /// From the first guest's start to the last one's end.
    pub(crate) seconds: f64,
    /// Whether all of it held.
    pub ok: bool,
}

impl Report {
    /// For people.
    pub fn text(&self) -> String {
        #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
        let ratio = self.size_bytes.0 as f64 / self.budget_bytes.0 as f64;
        let turns: Vec<String> = self.turns_seconds.iter().map(|turn| format!("{turn:.1}")).collect();
        format!(
            "{} guests with {} of memory ran on a budget of {} ({ratio:.1} times overcommitted) for {:.0} s.\n\
             ready     after {:.1} s\nturns     {} s\n\
             ledger    peak {}\nkernel    peak {}\nballoons  peak {}\n\
             patterns  {} verified, {} pages lost\nOOM kills {}\n{}",
            self.vms,
            self.size_bytes,
            self.budget_bytes,
            self.seconds,
            self.ready_seconds,
            turns.join(", "),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_tells_the_time_of_each_turn() {
        let report = Report {
            vms: 2,
            size_bytes: Bytes::mib(512),
            budget_bytes: Bytes::mib(320),
            peak_ledger_bytes: Bytes::mib(300),
            peak_kernel_bytes: Bytes::mib(290),
            ballooned_peak_bytes: Bytes::mib(200),
            verified_bytes: Bytes::mib(352),
            lost_writes: 0,
            oom_kills: 0,
            ready_seconds: 71.5,
            turns_seconds: vec![20.0, 31.4],
            seconds: 62.0,
            ok: true,
        };
        let text = report.text();
        assert!(text.contains("\nready     after 71.5 s\nturns     20.0, 31.4 s\n"), "{text}");
        assert!(text.contains("(1.6 times overcommitted) for 62 s.\n"), "{text}");
    }
}
