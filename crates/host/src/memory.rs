//! How much memory the machine has for VMs.

use anyhow::{Context, anyhow, ensure};
use plimsoll_units::Bytes;

use crate::config::{Budget, Config, check_budget};

/// The budget that `config` asks for. `running`: resident memory of VMs that run already, which the machine no longer
/// calls available but which is theirs.
///
/// # Errors
/// The machine's memory cannot be read, or is not enough for a VM.
pub(crate) fn budget(config: &Config, running: Bytes) -> anyhow::Result<Bytes> {
    let budget = match config.budget {
        Budget::Size(budget) => {
            let total = machine()?.0;
            ensure!(
                budget <= total,
                "budget {budget}: the machine has {total}; less is possible, or \"automatic\""
            );
            budget
        }
        Budget::Automatic => {
            let (total, available) = machine()?;
            let mine = available.saturating_add(running).min(total).saturating_sub(margin(total));
            tracing::info!(%total, %available, %running, margin = %margin(total), "automatic budget {mine}");
            mine
        }
    };
    check_budget(budget, config.min_free).map(|()| budget)
}

/// What the machine has for VMs now, of which they have `running` already. `None` where the machine does not tell.
///
/// Half of the margin may be used up by others before the VMs have to give: were it none, every program that starts would
/// cost guests memory; were it all, the kernel would look for somebody to kill before they had given.
pub(crate) fn usable(running: Bytes) -> Option<Bytes> {
    let (total, available) = machine().inspect_err(|e| tracing::warn!("{e:#}")).ok()?;
    Some(available.saturating_add(running).min(total).saturating_sub(Bytes(margin(total).0 / 2)))
}

/// What the host keeps for itself of memory that it calls available: 256 MiB and 1/32 of all.
///
/// What is available counts page cache that the host's own programs live on, and they grow. Without the constant part
/// a small host would push out the very programs that run it; the proportional part covers the kernel's tables, which
/// grow with memory. More would only be lost.
fn margin(total: Bytes) -> Bytes {
    Bytes::mib(256) + Bytes(total.0 / 32)
}

/// Total and available memory of the machine.
fn machine() -> anyhow::Result<(Bytes, Bytes)> {
    let path = "/proc/meminfo";
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let field = |key| field(&text, key).ok_or_else(|| anyhow!("{path} has no {key}"));
    Ok((field("MemTotal:")?, field("MemAvailable:")?))
}

/// The value of a line such as `MemTotal:  16384 kB`.
pub(crate) fn field(text: &str, key: &str) -> Option<Bytes> {
    text.lines().find_map(|line| kib(line.strip_prefix(key)?))
}

/// The size in `  16384 kB`.
pub(crate) fn kib(text: &str) -> Option<Bytes> {
    let kib: u64 = text.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024).map(Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_tells_its_memory() {
        let (total, available) = machine().unwrap();
        assert!(available <= total && available > Bytes::ZERO);
    }

    #[test]
    fn more_is_usable_than_an_automatic_budget_takes() {
        let budget = budget(&Config::default(), Bytes::ZERO).unwrap();
        // Other tests use memory at the same time: half of the margin is far more than that.
        assert!(usable(Bytes::ZERO).unwrap() > budget);
        assert!(usable(Bytes::mib(1 << 30)).unwrap() > usable(Bytes::ZERO).unwrap());
    }

    #[test]
    fn odd_lines_are_no_sizes() {
        assert_eq!(field("A: 1\nMemTotal:   42 kB\n", "MemTotal:"), Some(Bytes(42 << 10)));
        for odd in ["", "kB", "x kB", "-1 kB", "99999999999999999999 kB", "18446744073709551615 kB", "1 MB"] {
            assert_eq!(kib(odd), None, "{odd}");
        }
    }

    #[test]
    fn memory_of_running_vms_belongs_to_an_automatic_budget() {
        let config = Config::default();
        let (alone, with) =
            (budget(&config, Bytes::ZERO).unwrap(), budget(&config, Bytes::mib(1 << 30)).unwrap());
        assert!(with > alone);
    }
}
