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

#![expect(rustdoc::private_intra_doc_links, reason = "a program: its parts are all private")]

mod adopt;
mod api;
mod cgroup;
mod config;
mod core;
mod daemon;
mod descriptors;
mod domains;
mod epoll;
mod event_log;
mod events;
mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod history;
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
mod rota;
mod run_id;
mod saver;
mod start;
mod supervise;
mod swap;
mod tls;
mod turns;
mod uids;
mod vmm_log;
mod web;

use std::path::PathBuf;

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
    start::run(config)
}
