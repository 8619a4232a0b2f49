//! What a configuration sets, for the core and for launches; directories that it names.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::Context;
use plimsoll_units::{Bytes, Pages};

use crate::cgroup::Cgroups;
use crate::config::{Budget, Config};
use crate::core::{AutomaticBudget, Settings};
use crate::launch::Site;
use crate::process::boot_id;
use crate::swap::{SwapChoice, SwapSite};

/// What `config` sets for the core, for a `budget`.
pub(crate) fn settings(config: &Config, budget: Bytes, no_swap: Option<String>) -> Settings {
    Settings {
        budget: Pages::floor(budget),
        automatic: (config.budget == Budget::Automatic)
            .then(|| AutomaticBudget { thresholds: config.thresholds(), told: Pages::floor(budget) }),
        thresholds: config.thresholds().of(budget),
        rules: config.rules(),
        sampling: config.sampling(),
        eager_sharing: config.eager_sharing,
        no_swap,
        swap: config.most_swap().map(Pages::floor),
        paths: config.paths(),
        boot_id: boot_id().ok(),
    }
}

/// What `config` sets for launches of VMs.
///
/// # Errors
/// The path of the VMM is unknown.
pub(crate) fn site(
    config: &Config,
    cgroups: Result<Cgroups, String>,
    swap: Option<SwapSite>,
) -> anyhow::Result<Site> {
    Ok(Site {
        paths: config.paths(),
        agent: config.vmm()?.with_file_name("plimsoll-agent"),
        vmm: config.vmm()?,
        log: config.log.clone(),
        sampling: config.sampling(),
        cgroups,
        swap,
        rules: config.rules(),
    })
}

/// Where VMs get swap space, or why they get none.
///
/// # Errors
/// The configuration names a directory that cannot be used, and why.
pub(crate) fn open_swap(config: &Config) -> anyhow::Result<Result<SwapSite, String>> {
    let usable = |site: SwapSite| make_private(&site.directory).and_then(|()| site.check()).map(|()| site);
    Ok(match config.swap_choice() {
        SwapChoice::Off => Err("it is switched off ([swap] enabled = false)".to_owned()),
        SwapChoice::Named(site) => Ok(usable(site)?),
        SwapChoice::Default(site) => usable(site)
            .inspect_err(|why| tracing::warn!("VMs cannot be swapped out: {why:#}"))
            .map_err(|why| format!("{why:#}")),
    })
}

/// Makes a directory that only this user can look into.
pub(crate) fn make_private(directory: &Path) -> anyhow::Result<()> {
    make(directory, 0o700)
}

/// Makes a directory, and those above it.
pub(crate) fn make(directory: &Path, mode: u32) -> anyhow::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(directory).with_context(|| {
        format!(
            "cannot make {}: run plimsolld as root, or name other directories in its configuration",
            directory.display()
        )
    })
}
