//! What is checked of a configuration before the daemon starts.

use anyhow::{Context, bail, ensure};
use plimsoll_policy::Tax;
use plimsoll_protocol::control::{LONGEST_SAMPLE_PERIOD, MAX_SAMPLES, SHORTEST_SAMPLE_PERIOD};
use plimsoll_protocol::forgotten_unit;
use plimsoll_units::Bytes;

use super::thresholds::ThresholdKind;
use super::{Budget, Config, Swap, UIDS};
use crate::paths::MAX_RUN_DIRECTORY;
use crate::swap::SwapChoice;

impl Config {
    /// Checks what can be checked before the daemon starts.
    ///
    /// # Errors
    /// The first value that is not valid, by its key.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.check_memory()?;
        self.check_paths()?;
        ensure!(
            self.uid_base >= 1000 && self.uid_base <= u32::MAX - UIDS,
            "uid_base {}: {UIDS} users from it on must fit above 999 and below 2^32",
            self.uid_base
        );
        tracing_subscriber::EnvFilter::try_new(&self.log).with_context(|| format!("log {:?}", self.log))?;
        let vmm = self.vmm()?;
        ensure!(
            vmm.is_file(),
            "vmm {}: there is no such program: name that of VMs' processes, plimsoll-vmm",
            vmm.display()
        );
        self.socket_group()?;
        if let Some(tcp) = &self.tcp {
            tcp.check()?;
        }
        self.tls()?;
        self.tokens().map(drop)
    }

    /// Checks how memory is to be divided, sampled and reclaimed.
    fn check_memory(&self) -> anyhow::Result<()> {
        let swap = self.swap.as_ref().and_then(|swap| swap.size);
        for (key, size) in [("min_free", self.min_free), ("swap.size", swap)] {
            if let Some((size, meant)) = size.and_then(|size| Some((size, forgotten_unit(size)?))) {
                bail!("{key} {size}: {meant}");
            }
        }
        if let Budget::Size(budget) = self.budget {
            check_budget(budget, self.min_free)?;
        }
        ensure!(
            Tax::new(self.idle_tax).is_some(),
            "idle_tax {}: must be a number from 0 to 0.99",
            self.idle_tax
        );
        if let (ThresholdKind::Fixed, Some(min_free)) = (self.thresholds, self.min_free) {
            bail!(
                "min_free {min_free}: the \"fixed\" thresholds are percentages of the budget: leave one of both out"
            );
        }
        ensure!(
            (1..=MAX_LARGEST_BALLOON).contains(&self.largest_balloon),
            "largest_balloon {}: must be 1 to {MAX_LARGEST_BALLOON} percent",
            self.largest_balloon
        );
        ensure!(
            (1..=MAX_SAMPLES).contains(&self.sample_pages),
            "sample_pages {}: must be 1 to {MAX_SAMPLES}",
            self.sample_pages
        );
        let (shortest, longest) = (SHORTEST_SAMPLE_PERIOD.as_secs(), LONGEST_SAMPLE_PERIOD.as_secs());
        ensure!(
            (shortest..=longest).contains(&self.sample_period),
            "sample_period {}: must be {shortest} to {longest} seconds",
            self.sample_period
        );
        ensure!(
            self.largest_store <= MAX_LARGEST_STORE,
            "largest_store {}: must be 0 to {MAX_LARGEST_STORE} percent",
            self.largest_store
        );
        if let Some(Swap { size: Some(Bytes::ZERO), enabled: true, .. }) = self.swap {
            bail!(
                "swap.size 0: to run VMs without swap space write enabled = false; otherwise leave the size out or name one"
            );
        }
        Ok(())
    }

    /// Checks directories, and the medium of the one for swap space.
    fn check_paths(&self) -> anyhow::Result<()> {
        for (key, path) in
            [("state_directory", &self.state_directory), ("run_directory", &self.run_directory)]
        {
            ensure!(path.is_absolute(), "{key} {}: write an absolute path", path.display());
        }
        ensure!(
            self.run_directory.as_os_str().len() <= MAX_RUN_DIRECTORY,
            "run_directory {}: at most {MAX_RUN_DIRECTORY} bytes, so that the names of sockets in it fit",
            self.run_directory.display()
        );
        if let Some(swap) = &self.swap_directory {
            ensure!(swap.is_dir(), "swap_directory {}: there is no such directory", swap.display());
        }
        if let SwapChoice::Named(site) = self.swap_choice()
            && site.directory.is_dir()
        {
            site.check_medium()?;
        }
        Ok(())
    }
}

/// Smallest budget: the smallest VM with its overhead, and something to keep free.
pub(crate) const MIN_BUDGET: Bytes = Bytes::mib(64);
/// Largest balloon that may be set, in percent: a guest needs the rest for its kernel, or it runs
/// out of memory and takes back at once what its balloon gave.
const MAX_LARGEST_BALLOON: u8 = 95;
/// Largest store that may be set, in percent: each page in it takes half a page or less, so at half
/// a VM's size all of it could be compressed, and more would serve nothing.
const MAX_LARGEST_STORE: u8 = 50;

/// Checks a budget, however it was found.
pub(crate) fn check_budget(budget: Bytes, min_free: Option<Bytes>) -> anyhow::Result<()> {
    ensure!(budget >= MIN_BUDGET, "budget {budget}: at least {MIN_BUDGET} is needed for one small VM");
    if let Some(min_free) = min_free.filter(|m| m.0 > budget.0 / 4) {
        // Reclamation aims at four times minFree.
        bail!("min_free {min_free}: at most a quarter of the budget {budget} is allowed");
    }
    Ok(())
}
