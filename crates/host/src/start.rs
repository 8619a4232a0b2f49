//! From a configuration to a daemon that answers.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use plimsoll_protocol::api::Event;
use plimsoll_protocol::status::Exit;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};

use crate::adopt::{self, RunDirectories};
use crate::api::Gate;
use crate::cgroup::Cgroups;
use crate::config::{Config, UIDS};
use crate::core::{Clock, Core};
use crate::daemon::Daemon;
use crate::descriptors::Connections;
use crate::event_log::{EventLog, Recorded};
use crate::inventory::Inventory;
use crate::launch::{Gone, Site};
use crate::paths::{Paths, remove_cut_off};
use crate::pools::Pools;
use crate::setting_up::{make, make_private, open_swap, settings, site};
use crate::uids::Uids;
use crate::{
    Arguments, api, descriptors, event_log, inventory, lock, memory, oom, reload, service_manager, web,
};

/// Runs the daemon until a signal ends it.
pub(crate) fn run(config: Config, arguments: &Arguments) -> anyhow::Result<()> {
    descriptors::raise();
    let paths = config.paths();
    make_directories(&paths)?;
    let swap = open_swap(&config)?;
    let _locks = [lock::take(&paths.lock())?, lock::take(&paths.run_lock())?];
    remove_cut_off(&paths.state);
    let Inventory { records, unread } = inventory::load(&paths)?;
    let (pools, problem) = Pools::load(&paths)?;
    let Recorded { events, problem: lost_events } = event_log::load(&paths)?;
    let found = adopt::find(&paths)?;
    let budget = memory::budget(&config, found.memory())?;
    let settings = settings(&config, budget, swap.as_ref().err().cloned());
    tracing::info!(
        %budget, min_free = %settings.thresholds.clear.bytes(), vms = records.len(), running = found.survivors.len(),
        "plimsolld {}", env!("CARGO_PKG_VERSION")
    );
    let mut core = Core::new(settings, records, pools, Clock { now: Instant::now(), at: Timestamp::now() });
    core.restore_events(events.clone());
    for (record, unread) in unread {
        core.unreadable(record, unread);
    }
    problem.into_iter().chain(lost_events).chain(paths.too_long()).for_each(|problem| core.announce(problem));
    let cgroups = Cgroups::find(arguments.vm_cgroup.as_deref())
        .inspect_err(|why| tracing::warn!("VMs get no control groups: {why}"));
    if let Some(why) = cgroups.as_ref().ok().and_then(Cgroups::unlimited) {
        core.announce(format!(
            "the kernel does not hold VMMs to their grants, plimsolld watches them: {why}"
        ));
    }
    cgroups.iter().for_each(Cgroups::sweep);
    let site = site(&config, cgroups, swap.ok())?;
    let uids = if rustix::process::geteuid().is_root() { UIDS } else { 0 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(serve(
        &config,
        arguments.config.clone(),
        core,
        events,
        site,
        Uids::new(config.uid_base, uids),
        found,
    ));
    // Launches and the like may be waiting for a disk; what they hold ends with the process.
    runtime.shutdown_background();
    result
}

async fn serve(
    config: &Config,
    file: Option<PathBuf>,
    core: Core,
    events: Vec<Event>,
    site: Site,
    uids: Uids,
    found: RunDirectories,
) -> anyhow::Result<()> {
    oom::end_me_last();
    let hangup = signal(SignalKind::hangup())?;
    let mut daemon = Daemon::new(core, site.clone(), uids, EventLog::start(&site.paths, events))
        .context("cannot start a thread for shared pages")?;
    for (vm, how) in &found.gone {
        daemon.vanished(
            vm,
            match how {
                Gone::OtherBoot => Exit::EndedWithHost,
                Gone::Process(how) => Exit::Vanished(format!("it was gone when the daemon came back: {how}")),
            },
        );
    }
    for survivor in found.survivors {
        daemon.adopt(survivor);
    }
    daemon.taken_up();
    let api = api::router(daemon.caller(), site.paths.clone(), daemon.news());
    let connections = Connections::allowed();
    let tcp = listen_tcp(config, api.clone(), connections).await?;
    let socket = config.socket();
    let listener = bind(&socket, config.socket_group()?)?;
    // A client that may connect may do everything: users are not protected from each other here.
    let gate = Gate::new(connections.unix, connections.unix);
    let served = tokio::spawn(api::serve_unix(listener, api.merge(web::page()), gate));
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tracing::info!("plimsolld ready on {}", socket.display());
    tokio::spawn(reload::at_hangups(hangup, file, config.clone(), site, daemon.inbox()));
    service_manager::ready(&format!("answers on {}", socket.display()));
    let end = async {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    };
    let ended = daemon.run(end).await;
    service_manager::stopping();
    tracing::info!("plimsolld ends; its VMs run on");
    served.abort();
    if let Some(tcp) = tcp {
        tcp.abort();
    }
    std::fs::remove_file(&socket).with_context(|| format!("cannot remove {}", socket.display()))?;
    ended
}

async fn listen_tcp(
    config: &Config,
    api: axum::Router,
    connections: Connections,
) -> anyhow::Result<Option<tokio::task::JoinHandle<()>>> {
    let (Some(tcp), Some(tokens)) = (&config.tcp, config.tokens()?) else { return Ok(None) };
    let listener = TcpListener::bind(tcp.listen)
        .await
        .with_context(|| format!("cannot listen at tcp.listen {}", tcp.listen))?;
    tracing::info!("also on tcp {}, for clients with the token", listener.local_addr()?);
    let tls = config.tls()?;
    let api = api::with_tokens(api, tokens).merge(web::page());
    // Half of them, so that one peer cannot keep another one out.
    let gate = Gate::new(connections.tcp, connections.tcp.div_ceil(2));
    Ok(Some(tokio::spawn(api::serve_tcp(listener, api, gate, tls))))
}

/// Listens at `path`, for root and the members of `group`. The socket appears there under its name
/// only when it takes connections, in place of one that a dead daemon left.
fn bind(path: &Path, group: Option<u32>) -> anyhow::Result<UnixListener> {
    // Only these errors mean that no process listens there.
    let none = [std::io::ErrorKind::NotFound, std::io::ErrorKind::ConnectionRefused];
    let deserted = std::os::unix::net::UnixStream::connect(path).is_err_and(|e| none.contains(&e.kind()));
    ensure!(deserted, "another daemon answers at {}: end it, or name another socket", path.display());
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    let listen = || -> std::io::Result<UnixListener> {
        if let Err(e) = std::fs::remove_file(new)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            return Err(e);
        }
        let listener = UnixListener::bind(new)?;
        if group.is_some() {
            std::os::unix::fs::chown(new, None, group)?;
        }
        // A process that may write to the socket may do everything that the daemon can.
        std::fs::set_permissions(new, Permissions::from_mode(0o660))?;
        std::fs::rename(new, path)?;
        Ok(listener)
    };
    listen().with_context(|| format!("cannot listen at {}", path.display()))
}

fn make_directories(paths: &Paths) -> anyhow::Result<()> {
    make(&paths.run, 0o755)?;
    [paths.state.clone(), paths.records(), paths.logs(), paths.runs()]
        .iter()
        .try_for_each(|d| make_private(d))
}
