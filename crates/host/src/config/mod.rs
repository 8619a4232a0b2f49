//! The daemon's configuration.
//!
//! `packaging/plimsolld.toml`, which packages install, describes every key and shows its default.

mod budget;
mod check;
mod effective;
mod group;
mod tcp;
mod thresholds;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use plimsoll_policy::{Estimator, Rules, Tax};
use plimsoll_protocol::control::SamplingConfig;
use plimsoll_protocol::toml_text;
use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsAcceptor;

pub(crate) use self::budget::Budget;
pub(crate) use self::check::{MIN_BUDGET, check_budget};
use self::tcp::Tcp;
pub(crate) use self::tcp::Tokens;
pub(crate) use self::thresholds::{ThresholdChoice, ThresholdKind};
use crate::paths::Paths;
use crate::swap::{SwapChoice, SwapSite};

/// Read when no other file is named, if it exists.
pub(crate) const DEFAULT_FILE: &str = "/etc/plimsoll/plimsolld.toml";
/// Where packages install the VMM's program.
const INSTALLED_VMM: &str = "/usr/libexec/plimsoll-vmm";
/// Users that VMs may run as, from `uid_base` on: more than VMs ever fit a host.
pub(crate) const UIDS: u32 = 65_536;
/// Above what systemd hands out to containers (up to 1879048191) and below 2^31, from where some
/// programs take user numbers for negative.
const UID_BASE: u32 = 1_900_000_000;

/// The configuration as written; what is missing has its default.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) budget: Budget,
    pub(crate) thresholds: ThresholdKind,
    #[serde(serialize_with = "effective::size")]
    pub(crate) min_free: Option<Bytes>,
    pub(crate) idle_tax: f64,
    pub(crate) largest_balloon: u8,
    pub(crate) sample_pages: u32,
    pub(crate) sample_period: u64,
    pub(crate) largest_store: u8,
    pub(crate) eager_sharing: bool,
    pub(crate) state_directory: PathBuf,
    pub(crate) run_directory: PathBuf,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) socket_group: Option<String>,
    pub(crate) swap_directory: Option<PathBuf>,
    pub(crate) image_directory: Option<PathBuf>,
    pub(crate) vmm: Option<PathBuf>,
    pub(crate) uid_base: u32,
    pub(crate) log: String,
    pub(crate) swap: Option<Swap>,
    pub(crate) tcp: Option<Tcp>,
}

/// Swap space.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Swap {
    pub(crate) enabled: bool,
    #[serde(serialize_with = "effective::size")]
    pub(crate) size: Option<Bytes>,
    pub(crate) encrypt: bool,
    pub(crate) allow_memory: bool,
}

impl Default for Swap {
    fn default() -> Self {
        Self { enabled: true, size: None, encrypt: true, allow_memory: false }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            budget: Budget::Automatic,
            thresholds: ThresholdKind::Sliding,
            min_free: None,
            idle_tax: Tax::DEFAULT.rate(),
            largest_balloon: Rules::LARGEST_BALLOON,
            sample_pages: Estimator::SAMPLES,
            sample_period: Estimator::PERIOD.as_secs(),
            largest_store: Rules::LARGEST_STORE,
            eager_sharing: false,
            state_directory: "/var/lib/plimsoll".into(),
            run_directory: "/run/plimsoll".into(),
            socket: None,
            socket_group: None,
            swap_directory: None,
            image_directory: None,
            vmm: None,
            uid_base: UID_BASE,
            log: "info".to_owned(),
            swap: None,
            tcp: None,
        }
    }
}

impl Config {
    /// Reads `file`, or the default file where there is one, or takes the defaults. Everything is
    /// checked that can be without changing anything.
    ///
    /// # Errors
    /// Which file and key, which value, and what would do.
    pub(crate) fn read(file: Option<&Path>) -> anyhow::Result<Self> {
        let default = Path::new(DEFAULT_FILE);
        let file = file.or_else(|| default.exists().then_some(default));
        let Some(file) = file else {
            let config = Self::default();
            config.check()?;
            return Ok(config);
        };
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the configuration {}", file.display()))?;
        Self::parse(&text)
            .and_then(|config| config.check().map(|()| config).map_err(|e| located(&text, e)))
            .with_context(|| format!("in {}", file.display()))
    }

    /// Reads a configuration, unchecked.
    ///
    /// # Errors
    /// Which line, key and value.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        toml_text::read(text).map_err(anyhow::Error::msg)
    }

    /// Where the API's unix socket is.
    pub(crate) fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.run_directory.join("plimsoll.sock"))
    }

    /// The number of the group whose members may use the socket; `None`: that of this process.
    ///
    /// # Errors
    /// There is no such group.
    pub(crate) fn socket_group(&self) -> anyhow::Result<Option<u32>> {
        self.socket_group.as_deref().map(group::number).transpose()
    }

    /// This configuration, with what holds until the daemon is restarted as in `running`.
    pub(crate) fn with_daemon_of(self, running: &Self) -> Self {
        let running = running.clone();
        Self {
            state_directory: running.state_directory,
            run_directory: running.run_directory,
            socket: running.socket,
            socket_group: running.socket_group,
            uid_base: running.uid_base,
            tcp: running.tcp,
            ..self
        }
    }

    pub(crate) fn paths(&self) -> Paths {
        let (state, run) = (self.state_directory.clone(), self.run_directory.clone());
        Paths { state, run, images: self.image_directory() }
    }

    /// Where backing files of disks' images lie.
    pub(crate) fn image_directory(&self) -> PathBuf {
        self.image_directory.clone().unwrap_or_else(|| self.state_directory.join("images"))
    }

    /// The VMM's program.
    pub(crate) fn vmm(&self) -> anyhow::Result<PathBuf> {
        if let Some(vmm) = &self.vmm {
            return Ok(vmm.clone());
        }
        let own = std::env::current_exe().context("cannot find the path of plimsolld itself")?;
        let beside = own.with_file_name("plimsoll-vmm");
        Ok(if beside.is_file() { beside } else { PathBuf::from(INSTALLED_VMM) })
    }

    pub(crate) fn rules(&self) -> Rules {
        let tax = Tax::new(self.idle_tax).unwrap_or(Tax::DEFAULT);
        let (largest_balloon, largest_store) = (self.largest_balloon, self.largest_store);
        Rules { tax, largest_balloon, largest_store, ..Rules::default() }
    }

    /// Where VMs get swap space from.
    pub(crate) fn swap_choice(&self) -> SwapChoice {
        let swap = self.swap.clone().unwrap_or_default();
        let directory = self.swap_directory.clone().unwrap_or_else(|| self.state_directory.join("swap"));
        let site = SwapSite { directory, encrypt: swap.encrypt, allow_memory: swap.allow_memory };
        match (swap.enabled, self.swap.is_some() || self.swap_directory.is_some()) {
            (false, _) => SwapChoice::Off,
            (true, true) => SwapChoice::Named(site),
            (true, false) => SwapChoice::Default(site),
        }
    }

    /// The most swap space that all VMs may have; `None`: as much as there is.
    pub(crate) fn most_swap(&self) -> Option<Bytes> {
        self.swap.as_ref().filter(|swap| swap.enabled).and_then(|swap| swap.size)
    }

    pub(crate) fn sampling(&self) -> SamplingConfig {
        SamplingConfig { samples: self.sample_pages, period: Duration::from_secs(self.sample_period) }
    }

    pub(crate) fn thresholds(&self) -> ThresholdChoice {
        ThresholdChoice { kind: self.thresholds, min_free: self.min_free }
    }

    /// How TCP connections are encrypted; `None`: they are not.
    ///
    /// # Errors
    /// Certificate or key cannot be read or used, or others can read the key.
    pub(crate) fn tls(&self) -> anyhow::Result<Option<TlsAcceptor>> {
        self.tcp.as_ref().map_or(Ok(None), Tcp::tls)
    }

    /// The tokens of which clients over TCP have to show one; `None`: there is no TCP listener.
    ///
    /// # Errors
    /// It cannot be read, others can read it, or it is easy to guess.
    pub(crate) fn tokens(&self) -> anyhow::Result<Option<Tokens>> {
        self.tcp.as_ref().map(Tcp::tokens).transpose()
    }
}

/// Puts the line of the key that an error begins with before it.
fn located(text: &str, error: anyhow::Error) -> anyhow::Error {
    let message = format!("{error:#}");
    let key = message.split([' ', ':']).next().unwrap_or_default();
    match toml_text::line_of(text, key) {
        Some(line) => anyhow::Error::msg(format!("line {line}: {message}")),
        None => error,
    }
}

#[cfg(test)]
mod tests;
