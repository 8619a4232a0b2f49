//! How much memory the machine has for VMs.
//!
//! Memory that VMs hold is not available, but it is theirs, so it is added to the available memory.
//! So the result does not depend on what VMs do. Limits of control groups above the daemon count as
//! the machine's memory does, each for itself; the smallest result counts.

use std::path::Path;

use anyhow::ensure;
use plimsoll_machine::Reading;
use plimsoll_machine::limit::Limit;
use plimsoll_units::Bytes;

use crate::config::{Budget, Config, check_budget};

/// The budget that `config` asks for. `running`: memory of VMs that run already.
///
/// # Errors
/// The machine's memory cannot be read, or is not enough for a VM or for the budget.
pub(crate) fn budget(config: &Config, running: Bytes) -> anyhow::Result<Bytes> {
    let reading = Reading::take(Path::new("/proc"))?;
    let budget = match config.budget {
        Budget::Size(budget) => check_fits(budget, &reading).map(|()| budget)?,
        Budget::Automatic => {
            let mine = left(&reading, running, margin);
            let (total, available) = (reading.total, reading.available);
            tracing::info!(%total, %available, %running, margin = %margin(Whose::Machine, total), "automatic budget {mine}");
            if let Some(Limit { group, most, available, .. }) = reading.smallest_limit() {
                tracing::info!(limit = %most, %available, "the control group {} limits memory", group.display());
            }
            mine
        }
    };
    check_budget(budget, config.min_free).map(|()| budget)
}

/// Whether the machine has the budget that `config` names. An automatic one changes with the
/// machine.
///
/// # Errors
/// As [`budget`].
pub(crate) fn check(config: &Config) -> anyhow::Result<()> {
    match config.budget {
        Budget::Size(budget) => check_fits(budget, &Reading::take(Path::new("/proc"))?),
        Budget::Automatic => Ok(()),
    }
}

fn check_fits(budget: Bytes, reading: &Reading) -> anyhow::Result<()> {
    let total = reading.total;
    ensure!(budget <= total, "budget {budget}: the machine has {total}: set at most that, or \"automatic\"");
    if let Some(Limit { group, most, .. }) = reading.smallest_limit() {
        ensure!(
            budget <= *most,
            "budget {budget}: the control group {} allows {most}; raise its limit, or write less or \"automatic\"",
            group.display()
        );
    }
    Ok(())
}

/// What the machine has for VMs at a moment, theirs included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usable {
    /// Less half of the margin: VMs give what they have beyond this.
    pub(crate) now: Bytes,
    /// Less the whole margin: an automatic budget rises to this.
    pub(crate) lasting: Bytes,
}

impl Usable {
    /// Reads what the machine has now; VMs hold `running` of it. `None`: the machine does not tell.
    ///
    /// Other programs may use half of the margin before VMs have to give. With none of it, every
    /// program that starts would cost guests memory; with all of it, the OOM killer would act
    /// before VMs had given.
    pub(crate) fn look(running: Bytes) -> Option<Self> {
        let reading = Reading::take(Path::new("/proc")).inspect_err(|e| tracing::warn!("{e}")).ok()?;
        let half = |whose, total| Bytes(margin(whose, total).0 / 2);
        Some(Self { now: left(&reading, running, half), lasting: left(&reading, running, margin) })
    }
}

/// What has a total of memory: the machine, or a control group with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Machine,
    Group,
}

/// What `reading` leaves to VMs, which have `running` already, less a margin.
fn left(reading: &Reading, running: Bytes, margin: impl Fn(Whose, Bytes) -> Bytes) -> Bytes {
    let of = |whose, total: Bytes, available: Bytes, running: Bytes| {
        available.saturating_add(running).min(total).saturating_sub(margin(whose, total))
    };
    let machine = of(Whose::Machine, reading.total, reading.available, running);
    // VMs that were started from elsewhere are in another group.
    let group = |limit: &Limit| of(Whose::Group, limit.most, limit.available, running.min(limit.held));
    reading.limits.iter().map(group).fold(machine, Bytes::min)
}

/// What the host keeps for itself of memory that it calls available: 1/32 of all, and 256 MiB, or
/// 64 MiB within a control group.
///
/// What is available counts page cache that the host's own programs live on, and they grow. Without
/// the constant part a small host would push out the very programs that run it; a control group
/// holds few of them. The proportional part covers the kernel's tables, which grow with memory.
/// More would only be lost.
fn margin(whose: Whose, total: Bytes) -> Bytes {
    let constant = match whose {
        Whose::Machine => Bytes::mib(256),
        Whose::Group => Bytes::mib(64),
    };
    constant + Bytes(total.0 / 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(limits: &[(u64, u64, u64)]) -> Reading {
        let limit = |&(most, available, held): &(u64, u64, u64)| Limit {
            group: "/g".into(),
            most: Bytes::mib(most),
            available: Bytes::mib(available),
            held: Bytes::mib(held),
        };
        let limits = limits.iter().map(limit).collect();
        Reading { total: Bytes::mib(16_384), available: Bytes::mib(8192), limits }
    }

    #[test]
    fn more_is_usable_than_an_automatic_budget_takes() {
        let budget = budget(&Config::default(), Bytes::ZERO).unwrap();
        // Other tests use memory at the same time: half of the margin is far more than that.
        let look = |running| Usable::look(running).unwrap();
        assert!(look(Bytes::ZERO).now > budget);
        assert!(look(Bytes::mib(1 << 30)).now > look(Bytes::ZERO).now);
        assert!(look(Bytes::ZERO).now > look(Bytes::ZERO).lasting);
    }

    #[test]
    fn memory_of_running_vms_belongs_to_an_automatic_budget() {
        let config = Config::default();
        let (alone, with) =
            (budget(&config, Bytes::ZERO).unwrap(), budget(&config, Bytes::mib(1 << 30)).unwrap());
        assert!(with > alone);
    }

    #[test]
    fn the_smallest_of_machine_and_limits_is_left() {
        let left =
            |limits: &[(u64, u64, u64)], running| left(&reading(limits), Bytes::mib(running), margin).0 >> 20;
        assert_eq!(left(&[], 100), 8192 + 100 - 256 - 512);
        assert_eq!(left(&[(640, 500, 120), (4096, 3000, 500)], 100), 500 + 100 - 64 - 20);
        assert_eq!(left(&[(640, 500, 40)], 100), 500 + 40 - 64 - 20, "not all VMs are in the group");
        assert_eq!(left(&[(12_000, 11_000, 100)], 100), 8192 + 100 - 256 - 512, "others have taken more");
        assert_eq!(left(&[(64, 64, 0)], 0), 0);
    }

    #[test]
    fn a_budget_beyond_the_machine_or_a_limit_is_refused() {
        let fits = |mib, limits: &[(u64, u64, u64)]| check_fits(Bytes::mib(mib), &reading(limits));
        assert!(fits(16_384, &[]).is_ok() && fits(600, &[(600, 1, 1)]).is_ok());
        assert!(fits(16_385, &[]).unwrap_err().to_string().contains("the machine has 16GiB"));
        let refused = fits(601, &[(600, 1, 1), (900, 1, 1)]).unwrap_err().to_string();
        assert!(refused.contains("/g allows 600MiB"), "{refused}");
    }
}
