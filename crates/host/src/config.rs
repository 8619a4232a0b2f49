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
//!                                      # idle time whatever it has brought, and at the price of large pages: more VMs fit before memory is short
//! state_directory = "/var/lib/plimsoll"
//! run_directory = "/run/plimsoll"      # sockets; at most 57 bytes
//! socket = "/run/plimsoll/plimsoll.sock"
//! swap_directory = "/srv/swap"         # where VMs' swap space is; must exist; default: swap in the state directory, which is made
//! vmm = "/usr/libexec/plimsoll-vmm"    # default: beside plimsolld
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
//! # certificate = "/etc/plimsoll/cert.pem" # for TLS: the certificate, and those between it and its authority
//! # key = "/etc/plimsoll/key.pem"          # its key
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use plimsoll_policy::{Estimator, Rules, Tax, Thresholds};
use plimsoll_protocol::control::{
    LONGEST_SAMPLE_PERIOD, MAX_SAMPLES, SHORTEST_SAMPLE_PERIOD, SamplingConfig,
};
use plimsoll_units::Bytes;
use serde::{Deserialize, Deserializer};
use tokio_rustls::TlsAcceptor;

use crate::paths::{MAX_RUN_DIRECTORY, Paths};
use crate::swap::{SwapChoice, SwapSite};
use crate::tls;

/// Read when no other file is named, if it exists.
pub(crate) const DEFAULT_FILE: &str = "/etc/plimsoll/plimsolld.toml";
/// Smallest budget: the smallest VM with its overhead, and something to keep free.
pub(crate) const MIN_BUDGET: Bytes = Bytes::mib(64);
/// Largest balloon that may be set, in percent: a guest needs the rest for its kernel, or it runs
/// out of memory and takes back at once what its balloon gave.
const MAX_LARGEST_BALLOON: u8 = 95;
/// Largest store that may be set, in percent: each page in it takes half a page or less, so at half
/// a VM's size all of it could be compressed, and more would serve nothing.
const MAX_LARGEST_STORE: u8 = 50;
/// Users that VMs may run as, from `uid_base` on: more than VMs ever fit a host.
pub(crate) const UIDS: u32 = 65_536;
/// Above what systemd hands out to containers (up to 1879048191) and below 2^31, from where some
/// programs take user numbers for negative.
const UID_BASE: u32 = 1_900_000_000;

/// The configuration as written; what is missing has its default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) budget: Budget,
    pub(crate) thresholds: ThresholdKind,
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
    pub(crate) swap_directory: Option<PathBuf>,
    pub(crate) vmm: Option<PathBuf>,
    pub(crate) uid_base: u32,
    pub(crate) log: String,
    pub(crate) swap: Option<Swap>,
    pub(crate) tcp: Option<Tcp>,
}

/// Swap space.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Swap {
    pub(crate) enabled: bool,
    pub(crate) size: Option<Bytes>,
    pub(crate) encrypt: bool,
    pub(crate) allow_memory: bool,
}

impl Default for Swap {
    fn default() -> Self {
        Self { enabled: true, size: None, encrypt: true, allow_memory: false }
    }
}

/// Where the thresholds of the host's states come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ThresholdKind {
    /// From minFree, as in ESXi.
    Sliding,
    /// From the budget: the paper's percentages.
    Fixed,
}

/// How the thresholds of the host's states follow from its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThresholdChoice {
    kind: ThresholdKind,
    min_free: Option<Bytes>,
}

impl ThresholdChoice {
    /// The thresholds for `budget`.
    pub(crate) fn of(self, budget: Bytes) -> Thresholds {
        match (self.kind, self.min_free) {
            (ThresholdKind::Fixed, _) => Thresholds::fixed(budget),
            (ThresholdKind::Sliding, Some(min_free)) => Thresholds::of_min_free(min_free),
            (ThresholdKind::Sliding, None) => Thresholds::sliding(budget),
        }
    }
}

/// A listener beside the unix socket.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tcp {
    pub(crate) listen: SocketAddr,
    pub(crate) token_file: PathBuf,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// How much machine memory VMs may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Budget {
    /// What the machine has available less a margin, followed while the daemon runs.
    Automatic,
    /// This much.
    Size(Bytes),
}

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            Number(u64),
            Word(String),
        }
        match Text::deserialize(deserializer)? {
            Text::Number(bytes) => Ok(Self::Size(Bytes(bytes))),
            Text::Word(word) if word == "automatic" => Ok(Self::Automatic),
            Text::Word(word) => word
                .parse()
                .map(Self::Size)
                .map_err(|e| serde::de::Error::custom(format!("budget: {e}, or \"automatic\""))),
        }
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
            .and_then(|config| config.check().map(|()| config))
            .with_context(|| format!("in {}", file.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(0, |s| 1 + text.bytes().take(s.start).filter(|&b| b == b'\n').count());
            anyhow::anyhow!("line {line}: {}", e.message().lines().collect::<Vec<_>>().join(", "))
        })
    }

    fn check(&self) -> anyhow::Result<()> {
        if let Budget::Size(budget) = self.budget {
            check_budget(budget, self.min_free)?;
        }
        ensure!(
            Tax::new(self.idle_tax).is_some(),
            "idle_tax {}: a number from 0 to 0.99 is possible",
            self.idle_tax
        );
        if let (ThresholdKind::Fixed, Some(min_free)) = (self.thresholds, self.min_free) {
            bail!(
                "min_free {min_free}: the \"fixed\" thresholds are percentages of the budget: leave one of both out"
            );
        }
        ensure!(
            (1..=MAX_LARGEST_BALLOON).contains(&self.largest_balloon),
            "largest_balloon {}: 1 to {MAX_LARGEST_BALLOON} percent are possible",
            self.largest_balloon
        );
        ensure!(
            (1..=MAX_SAMPLES).contains(&self.sample_pages),
            "sample_pages {}: 1 to {MAX_SAMPLES} are possible",
            self.sample_pages
        );
        let (shortest, longest) = (SHORTEST_SAMPLE_PERIOD.as_secs(), LONGEST_SAMPLE_PERIOD.as_secs());
        ensure!(
            (shortest..=longest).contains(&self.sample_period),
            "sample_period {}: {shortest} to {longest} seconds are possible",
            self.sample_period
        );
        ensure!(
            self.largest_store <= MAX_LARGEST_STORE,
            "largest_store {}: 0 to {MAX_LARGEST_STORE} percent are possible",
            self.largest_store
        );
        if let Some(Swap { size: Some(Bytes::ZERO), enabled: true, .. }) = self.swap {
            bail!(
                "swap.size 0: to run VMs without swap space write enabled = false; otherwise leave the size out or name one"
            );
        }
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
        ensure!(
            self.uid_base >= 1000 && self.uid_base <= u32::MAX - UIDS,
            "uid_base {}: {UIDS} users from it on must fit above 999 and below 2^32",
            self.uid_base
        );
        tracing_subscriber::EnvFilter::try_new(&self.log).with_context(|| format!("log {:?}", self.log))?;
        let vmm = self.vmm()?;
        ensure!(
            vmm.is_file(),
            "there is no VMM program {}: name it in the configuration (vmm = ...)",
            vmm.display()
        );
        if let Some(tcp) = &self.tcp {
            ensure!(
                tcp.certificate.is_some() == tcp.key.is_some(),
                "[tcp]: certificate and key belong together: name both, or neither"
            );
            ensure!(
                tcp.certificate.is_some() || tcp.listen.ip().to_canonical().is_loopback(),
                "tcp.listen {}: without TLS only a loopback address such as 127.0.0.1 is possible, because the token and \
                 all answers go over it in clear; name tcp.certificate and tcp.key, or use ssh -L from other hosts",
                tcp.listen
            );
        }
        self.tls()?;
        self.token().map(drop)
    }

    /// Where the API's unix socket is.
    pub(crate) fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.run_directory.join("plimsoll.sock"))
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
        Ok(own.with_file_name("plimsoll-vmm"))
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
        match &self.tcp {
            Some(Tcp { certificate: Some(certificate), key: Some(key), .. }) => {
                private(key).with_context(|| format!("tcp.key {}", key.display()))?;
                tls::acceptor(certificate, key).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The token that clients over TCP have to show; `None`: there is no TCP listener.
    pub(crate) fn token(&self) -> anyhow::Result<Option<String>> {
        let Some(Tcp { token_file, .. }) = &self.tcp else { return Ok(None) };
        let what = || format!("tcp.token_file {}", token_file.display());
        private(token_file).with_context(what)?;
        let token = std::fs::read_to_string(token_file).with_context(what)?.trim().to_owned();
        ensure!(
            token.len() >= 16 && token.chars().all(|c| c.is_ascii_graphic()),
            "{}: put a token of at least 16 printable characters there, such as from: openssl rand -hex 16",
            what()
        );
        Ok(Some(token))
    }
}

/// Checks that nobody else can read a file.
fn private(file: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(file)?.permissions().mode();
    ensure!(mode & 0o077 == 0, "others may read it: chmod 600 it");
    Ok(())
}

/// Checks a budget, however it was found.
pub(crate) fn check_budget(budget: Bytes, min_free: Option<Bytes>) -> anyhow::Result<()> {
    ensure!(budget >= MIN_BUDGET, "budget {budget}: at least {MIN_BUDGET} is needed for one small VM");
    if let Some(min_free) = min_free.filter(|m| m.0 > budget.0 / 4) {
        // Reclamation aims at four times minFree.
        bail!("min_free {min_free}: at most a quarter of the budget {budget} is possible");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let checked = Config::parse(text).and_then(|c| c.check());
        format!("{:#}", checked.unwrap_err())
    }

    #[test]
    fn every_error_names_key_and_value_in_one_line() {
        let vmm = "vmm = '/bin/true'\n";
        for (text, part) in [
            ("colour = 1\n", "colour"),
            ("budget = '1MB'\n", "1MB"),
            ("budget = '1MiB'\n", "budget 1MiB"),
            ("budget = '256MiB'\nmin_free = '128MiB'\n", "min_free 128MiB"),
            ("idle_tax = 1.0\n", "idle_tax 1"),
            ("idle_tax = nan\n", "idle_tax NaN"),
            ("idle_tax = -0.1\n", "idle_tax -0.1"),
            ("min_free = -1\n", "-1 is not a size"),
            ("budget = '99999999999999TiB'\n", "99999999999999TiB"),
            ("thresholds = 'loose'\n", "loose"),
            ("thresholds = 'fixed'\nmin_free = '1MiB'\n", "min_free 1MiB"),
            ("[swap]\nsize = '8GB'\n", "8GB"),
            ("[swap]\ncolour = 1\n", "colour"),
            ("[swap]\nsize = 0\n", "enabled = false"),
            ("largest_store = 51\n", "largest_store 51"),
            ("eager_sharing = 'yes'\n", "boolean"),
            ("largest_balloon = 0\n", "largest_balloon 0"),
            ("sample_pages = 0\n", "sample_pages 0"),
            ("sample_pages = 1001\n", "sample_pages 1001"),
            ("sample_period = 0\n", "sample_period 0"),
            ("sample_period = 3601\n", "sample_period 3601"),
            ("largest_balloon = 96\n", "largest_balloon 96"),
            ("largest_balloon = -1\n", "-1"),
            ("state_directory = 'here'\n", "state_directory here"),
            ("swap_directory = '/nowhere'\n", "swap_directory /nowhere"),
            ("uid_base = 0\n", "uid_base 0"),
            ("log = 'loud,=='\n", "log"),
            ("[tcp]\nlisten = 'x'\ntoken_file = '/t'\n", "line"),
            (
                "[tcp]\nlisten = '0.0.0.0:1'\ntoken_file = '/t'\n",
                "tcp.listen 0.0.0.0:1: without TLS only a loopback",
            ),
            ("[tcp]\nlisten = '0.0.0.0:1'\ntoken_file = '/t'\nkey = '/k'\n", "belong together"),
            (
                "[tcp]\nlisten = '0.0.0.0:1'\ntoken_file = '/t'\nkey = '/nowhere'\ncertificate = '/c'\n",
                "tcp.key /nowhere: No such file",
            ),
            ("[tcp]\nlisten = '[::]:1'\ntoken_file = '/t'\n", "tcp.listen [::]:1"),
            ("[tcp]\nlisten = '[::ffff:127.0.0.1]:1'\ntoken_file = '/nowhere'\n", "token_file /nowhere"),
            ("[tcp]\nlisten = '127.0.0.1:1'\ntoken_file = '/nowhere'\n", "token_file /nowhere"),
        ] {
            let error = error(&format!("{vmm}{text}"));
            assert!(error.contains(part), "{part}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        assert!(error("vmm = '/nowhere/vmm'\n").contains("/nowhere/vmm"));
        assert!(error(&format!("run_directory = '/{}'\n{vmm}", "r".repeat(60))).contains("run_directory"));
    }

    #[test]
    fn an_error_names_its_line() {
        for (text, line) in [
            ("colour = 1\n", "line 1:"),
            ("\n\nlog = 'info'\ncolour = 1\n", "line 4:"),
            ("log = 'info'\n# more\nbudget = '1MB'\n", "line 3:"),
            ("log = 'info'\n[swap]\n\nsize = '8GB'\n", "line 4:"),
            ("log = 'info'\nlog\n", "line 2:"),
        ] {
            let error = error(text);
            assert!(error.starts_with(line), "{line} {error}");
        }
    }

    #[test]
    fn thresholds_are_esxis_the_papers_or_the_operators() {
        let clear =
            |text: &str| Config::parse(text).unwrap().thresholds().of(Bytes::mib(1000)).clear.bytes().0 >> 20;
        let settings = ["", "thresholds = 'fixed'\n", "min_free = '10MiB'\n"];
        assert_eq!(settings.map(clear), [60, 60, 10]);
        let soft =
            |text: &str| Config::parse(text).unwrap().thresholds().of(Bytes::mib(1000)).soft.bytes().0 >> 20;
        assert_eq!(settings.map(soft), [38, 40, 6]);
    }

    #[test]
    fn vms_swap_unless_that_is_switched_off() {
        let choice = |text: &str| Config::parse(text).unwrap().swap_choice();
        let at =
            |directory: &str| SwapSite { directory: directory.into(), encrypt: true, allow_memory: false };
        assert_eq!(choice("swap_directory = '/d'\n[swap]\nenabled = false\n"), SwapChoice::Off);
        assert_eq!(choice(""), SwapChoice::Default(at("/var/lib/plimsoll/swap")));
        assert_eq!(choice("swap_directory = '/d'\n"), SwapChoice::Named(at("/d")));
        assert_eq!(choice("state_directory = '/s'\n[swap]\n"), SwapChoice::Named(at("/s/swap")));
        let clear = SwapSite { encrypt: false, ..at("/d") };
        assert_eq!(choice("swap_directory = '/d'\nswap.encrypt = false\n"), SwapChoice::Named(clear));
        let most = |text: &str| Config::parse(text).unwrap().most_swap();
        assert_eq!(most("[swap]\nsize = '1GiB'\n"), Some(Bytes::mib(1024)));
        assert_eq!(most("[swap]\nsize = '1GiB'\nenabled = false\n"), None);
        assert_eq!(most("swap_directory = '/d'\n"), None);
    }

    #[test]
    fn the_manual_is_a_configuration() {
        let manual: String = include_str!("config.rs")
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .filter_map(|line| line.strip_prefix("//! "))
            .skip_while(|line| *line != "```toml")
            .skip(1)
            .take_while(|line| *line != "```")
            .map(|line| format!("{line}\n"))
            .collect();
        let config = Config::parse(&manual).unwrap();
        assert_eq!(config.uid_base, Config::default().uid_base);
        assert_eq!(config.socket(), Path::new(plimsoll_protocol::api::DEFAULT_SOCKET));
        assert_eq!(Config::default().socket(), config.socket());
    }

    #[test]
    fn a_token_that_others_can_read_or_guess_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let token_file = directory.path().join("token");
        std::fs::write(&token_file, "0123456789abcdef\n").unwrap();
        let listen = "127.0.0.1:1".parse().unwrap();
        let tcp = Tcp { listen, token_file: token_file.clone(), certificate: None, key: None };
        let config = Config { tcp: Some(tcp), ..Config::default() };
        let mode = |m| std::fs::set_permissions(&token_file, PermissionsExt::from_mode(m)).unwrap();
        mode(0o644);
        assert!(format!("{:#}", config.token().unwrap_err()).contains("chmod"));
        mode(0o600);
        assert_eq!(config.token().unwrap().as_deref(), Some("0123456789abcdef"));
        std::fs::write(&token_file, "short").unwrap();
        assert!(config.token().is_err());
    }
}
