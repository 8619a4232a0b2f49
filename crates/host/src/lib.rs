//! `plimsolld`, the daemon: one per host.
//!
//! It knows the host's VMs ([`inventory`]) and resource pools ([`pools`]), keeps the account of
//! machine memory ([`ledger`]), decides how memory is divided ([`core`], with the arithmetic of
//! `plimsoll-policy`), has VMs share pages ([`domains`]), starts VMMs ([`launch`]), exchanges
//! messages with them ([`link`]) and answers users ([`api`]). [`daemon`] carries messages between
//! these parts. Start reading there, or at [`core`] for the decisions.
//!
//! It never maps a guest's memory (it reads what a VMM offers to share as a file:
//! [`plimsoll_sharing::Window`]) and never waits for a VMM. A VMM's message is a claim, bounded by
//! what the daemon itself knows. When the daemon dies its VMs run on. The next daemon finds them
//! ([`adopt`]), and keeps trying where a VMM does not answer ([`reach`]).
//! The service manager that started it is told how it is ([`service_manager`]), and at SIGHUP it
//! reads its configuration again ([`reload`]).

#![expect(rustdoc::private_intra_doc_links, reason = "a program: its parts are all private")]

mod adopt;
mod api;
mod cgroup;
mod cids;
mod closing;
mod config;
mod core;
mod daemon;
mod descriptors;
mod domains;
mod epoll;
mod event_log;
mod events;
#[cfg(test)]
mod forks;
mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod history;
mod images;
mod incoming;
mod intake;
mod inventory;
mod kernel_account;
mod launch;
mod ledger;
mod link;
mod liveness;
mod lock;
mod log_pipe;
mod memory;
mod oom;
mod outbox;
mod outline;
mod paths;
mod pools;
mod process;
mod processors;
mod reach;
mod reload;
mod rota;
mod run_id;
mod saver;
mod service_manager;
mod setting_up;
mod start;
mod supervise;
mod swap;
mod tls;
mod turns;
mod uids;
mod version;
mod vmm_log;
mod web;
mod windowed;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;

/// What the command line says.
#[derive(Debug, clap::Parser)]
#[command(
    name = "plimsolld",
    version,
    about = "Runs virtual machines in less memory than they were promised"
)]
pub struct Arguments {
    /// The configuration; default: /etc/plimsoll/plimsolld.toml where it exists, else built-in
    /// values.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and end.
    #[arg(long)]
    check: bool,
    /// Print the configuration in effect as TOML, every key with its value, and end.
    #[arg(long, conflicts_with = "check")]
    print_config: bool,
    /// Control group (version 2, by its path in the hierarchy) below which VMs get theirs. It must
    /// be there, with no process in it. Default: the group that plimsolld is started in.
    #[arg(long, value_name = "PATH")]
    vm_cgroup: Option<PathBuf>,
}

/// Runs the daemon until it is told to end. VMs run on when it does.
///
/// # Errors
/// What kept it from starting, in one line.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let _control_fd = launch::reserve_control_fd()?;
    let config = config::Config::read(arguments.config.as_deref())?;
    plimsoll_log::init(tracing_subscriber::EnvFilter::new(&config.log));
    if arguments.check {
        memory::check(&config)?;
        tracing::info!("the configuration is good");
        return Ok(());
    }
    if arguments.print_config {
        let text = config.effective()?;
        return std::io::stdout().write_all(text.as_bytes()).context("cannot print the configuration");
    }
    start::run(config, arguments)
}

/// The meaning and the type of each metric of `/metrics`, in the text format of OpenMetrics,
/// without values: for the operators' reference.
///
/// # Errors
/// None that is known: a `String` takes all text.
pub fn metrics() -> Result<String, std::fmt::Error> {
    api::meanings()
}

/// Reads `text` as a configuration, and holds no value against this machine: for examples in
/// documents.
///
/// # Errors
/// Which line, key and value.
pub fn read_configuration(text: &str) -> anyhow::Result<()> {
    config::Config::parse(text).map(drop)
}
