//! The daemon's configuration.
//!
//! ```toml
//! budget = "automatic"                 # machine memory for VMs: a size, or "automatic" (what is available less a margin, within
//!                                      # the limits of the control groups that plimsolld is in; it is followed as that changes)
//! thresholds = "sliding"               # of the host's states: "sliding" as in ESXi, or "fixed", the paper's 6, 4, 2 and 1 % of the budget
//! min_free = "64MiB"                   # memory to keep free; default: slides with the budget, 6 % of the first 4GiB; not with "fixed"
//! idle_tax = 0.75                      # part of an idle page's worth that its VM forfeits, 0 to 0.99
//! largest_balloon = 65                 # percent of a VM's size, 1 to 95
//! sample_pages = 100                   # of each VM's memory watched in a period, 1 to 1000: a large chunk counts as one
//! sample_period = 15                   # seconds that a VM executes in a period, 1 to 3600; what it uses shows within a few
//! largest_store = 10                   # most that compressed pages may take, percent of a VM's size, 0 (none are compressed) to 50
//! eager_sharing = false                # true: in every state VMs look for pages to share as they do in state soft, with half of the processors'
//!                                      # idle time whatever it has brought, and large pages are broken up: more VMs fit before memory is short
//! state_directory = "/var/lib/plimsoll"
//! run_directory = "/run/plimsoll"      # sockets; at most 57 bytes
//! socket = "/run/plimsoll/plimsoll.sock"
//! socket_group = "plimsoll"            # whose members may use the socket, as powerful as root: a name in /etc/group or a number; default: plimsolld's
//! swap_directory = "/srv/swap"         # where VMs' swap space is; must exist; default: swap in the state directory, which is made
//! vmm = "/usr/libexec/plimsoll-vmm"    # default: plimsoll-vmm beside plimsolld, or else this
//! uid_base = 1900000000                # first of the 65536 users that VMs run as
//! log = "info"                         # error, warn, info, debug, trace, or a filter such as plimsoll_host=debug
//!
//! # A VM that is started has swap space of its size less its reservation set aside; it does not start without. A directory that
//! # is named, or a [swap] section, must be of use; the default is left out where it is not, which host, explain and run tell.
//! # Settings hold for VMs that are started after.
//! [swap]
//! enabled = true                       # false: no swap space for VMs, and admission does not look at it
//! size = "8GiB"                        # most swap space of all VMs together; default: what the file system has
//! encrypt = true                       # what is written is encrypted, with keys that are nowhere else than in VMs' processes
//! allow_memory = false                 # true: swap space may be in memory (tmpfs, zram), for tests: no ledger counts that
//!
//! [tcp]                                # only when asked for
//! listen = "127.0.0.1:7467"            # without certificate and key a loopback address: nothing encrypts what goes over it
//! token_file = "/etc/plimsoll/token"   # who shows this token may do everything
//! view_token_file = "/etc/plimsoll/view"  # who shows this one may look, and change nothing
//! # certificate = "/etc/plimsoll/cert.pem" # for TLS: the certificate, and those between it and its authority
//! # key = "/etc/plimsoll/key.pem"          # its key
//! ```

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
        Paths { state: self.state_directory.clone(), run: self.run_directory.clone() }
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
