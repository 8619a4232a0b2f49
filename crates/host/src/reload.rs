//! Reading the configuration again while the daemon runs, at SIGHUP.
//!
//! What divides memory changes at once. What VMs are started with holds for those that start later
//! ([`OF_VMS`]). What the daemon opened at its start stays until it is restarted
//! ([`OF_THE_DAEMON`]). A configuration with an error changes nothing.

use std::path::{Path, PathBuf};

use anyhow::Context;
use plimsoll_units::Bytes;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tracing_subscriber::EnvFilter;

use crate::config::{Budget, Config};
use crate::incoming::{Incoming, Reloaded};
use crate::launch::Site;
use crate::{memory, service_manager, setting_up};

/// Keys that hold for VMs that start later.
const OF_VMS: [&str; 6] =
    ["sample_pages", "sample_period", "swap_directory", "image_directory", "vmm", "swap"];
/// Keys that hold until the daemon is restarted.
const OF_THE_DAEMON: [&str; 6] =
    ["state_directory", "run_directory", "socket", "socket_group", "uid_base", "tcp"];

/// Reads `file` again at each SIGHUP, in a daemon with `config` and `site`, whose loop receives
/// from `inbox`.
pub(crate) async fn at_hangups(
    mut hangup: Signal,
    file: Option<PathBuf>,
    mut config: Config,
    site: Site,
    inbox: mpsc::Sender<Incoming>,
) {
    while hangup.recv().await.is_some() {
        service_manager::reloading();
        let (file, before, site) = (file.clone(), config.clone(), site.clone());
        let read = tokio::task::spawn_blocking(move || read(file.as_deref(), &before, &site)).await;
        let status = match read.map_err(anyhow::Error::from).and_then(|read| read) {
            Ok((new, reloaded)) => {
                config = new;
                let news = reloaded.news.clone();
                let (done, taken_up) = oneshot::channel();
                inbox.send(Incoming::Reloaded(Box::new(reloaded), done)).await.ok(); // It may end.
                taken_up.await.ok();
                news
            }
            Err(e) => {
                let error = format!("the configuration is not changed: {e:#}");
                tracing::error!("{error}");
                error
            }
        };
        service_manager::ready(&status);
    }
}

/// The configuration in `file`, as far as it can be in effect now, and what it changes.
fn read(file: Option<&Path>, before: &Config, site: &Site) -> anyhow::Result<(Config, Reloaded)> {
    let written = Config::read(file)?;
    memory::check(&written)?;
    let new = written.clone().with_daemon_of(before);
    let swap = setting_up::open_swap(&new)?;
    let budget = match new.budget {
        Budget::Size(budget) => budget,
        Budget::Automatic => Bytes::ZERO, // The core goes on from where it is.
    };
    let settings = setting_up::settings(&new, budget, swap.as_ref().err().cloned());
    let news = news(before, &written)?;
    if new.log != before.log {
        plimsoll_log::change(EnvFilter::try_new(&new.log).context("log")?);
    }
    let site = setting_up::site(&new, site.cgroups.clone(), swap.ok())?;
    Ok((new, Reloaded { settings, site, news }))
}

/// Which keys differ, and since when the new values hold.
fn news(before: &Config, written: &Config) -> anyhow::Result<String> {
    let (before, written) = (before.table()?, written.table()?);
    let mut keys: Vec<&str> = before.keys().chain(written.keys()).map(String::as_str).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.retain(|key| before.get(*key) != written.get(*key));
    let (daemon, others): (Vec<&str>, Vec<&str>) = keys.iter().partition(|key| OF_THE_DAEMON.contains(key));
    let (vms, now): (Vec<&str>, Vec<&str>) = others.iter().partition(|key| OF_VMS.contains(key));
    let parts = [
        ("in effect", now),
        ("for VMs that start from now on", vms),
        ("not before plimsolld is restarted", daemon),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(_, keys)| !keys.is_empty())
        .map(|(when, keys)| format!("{when}: {}", keys.join(", ")))
        .collect();
    let what = if parts.is_empty() { "nothing has changed".to_owned() } else { parts.join("; ") };
    Ok(format!("the configuration was read again; {what}"))
}
