//! Watching over one VMM: its messages and its end.

use std::path::PathBuf;
use std::pin::pin;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_protocol::VmName;
use tokio::io::Interest;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

use crate::core::{Input, RunId};
use crate::epoll::register;
use crate::incoming::Incoming;
use crate::intake::{Intake, Talkers};
use crate::link::Link;
use crate::log_pipe::LogPipe;
use crate::oom::{OomKill, OomWatch};
use crate::process::{Process, ending, last_line};
use crate::reach::{Outcome, Reach, gone};

/// How long to read on after the process' end: what it sent is in the socket already, unless
/// another process holds the other end, which only a hostile VMM arranges.
const DRAIN: Duration = Duration::from_secs(1);

/// What to watch.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) run: RunId,
    pub(crate) vm: VmName,
    pub(crate) process: Arc<Process>,
    /// `None` where an earlier daemon started it.
    pub(crate) child: Option<Child>,
    pub(crate) link: Link,
    pub(crate) log: PathBuf,
    pub(crate) oom: Arc<OomWatch>,
    pub(crate) talkers: Talkers,
    /// Moves its messages to the log; `None` where there is no pipe to read them from.
    pub(crate) logged: Option<JoinHandle<()>>,
}

/// Passes on what the VMM says, in order, and at last that its process is gone: after everything it
/// had said.
pub(crate) async fn watch(watch: Watch, inbox: Sender<Incoming>) {
    let Watch { run, vm, process, child, link, log, oom, talkers, logged } = watch;
    {
        let mut ended = pin!(ended(&process));
        let mut talk = pin!(talk(run, &link, Intake::new(talkers), &inbox));
        tokio::select! {
            () = &mut talk => ended.await,
            () = &mut ended => {
                tokio::time::timeout(DRAIN, talk).await.ok(); // It may not be its VMM's any more.
            }
        }
    }
    if let Some(logged) = logged {
        // Its last messages tell why it ended.
        tokio::time::timeout(DRAIN, logged).await.ok();
    }
    send(&inbox, Input::Exited(run, how(child, &log, || oom.explains(&vm, process.pid())))).await;
}

/// Gets in touch with a VMM that an earlier daemon started, and watches over it from then on.
pub(crate) async fn adopt(reach: Reach, log: PathBuf, oom: Arc<OomWatch>, inbox: Sender<Incoming>) {
    let (run, vm, talkers) = (reach.run, reach.vm.clone(), reach.talkers.clone());
    // A VMM of an older release has the log itself.
    let logged = LogPipe::open(&reach.directory, log.clone()).ok().map(|pipe| tokio::spawn(pipe.run()));
    match reach.reach(&inbox).await {
        Outcome::Gone(how) => send(&inbox, Input::Exited(run, with_log(how, &log))).await,
        Outcome::Reached(reached, process) => {
            let link = reached.link.clone();
            inbox.send(Incoming::Reached(run, reached)).await.ok(); // The daemon may be about to end.
            watch(Watch { run, vm, process, child: None, link, log, oom, talkers, logged }, inbox).await;
        }
    }
}

/// Returns when `process` has ended. An error says nothing of the process, so it is then looked at
/// now and again.
async fn ended(process: &Process) {
    let watched = process.watch().and_then(|pidfd| register(pidfd, Interest::READABLE));
    let readable = match watched {
        Ok(pidfd) => pidfd.readable().await.map(drop),
        Err(e) => Err(e),
    };
    if let Err(e) = readable {
        tracing::warn!(
            pid = process.pid(),
            "cannot wait for the end of the process, which is looked at instead: {e}"
        );
        gone(process).await;
    }
}

async fn talk(run: RunId, link: &Link, mut intake: Intake, inbox: &Sender<Incoming>) {
    let read = async {
        loop {
            match link.read(&mut intake).await {
                Ok(Some(message)) => send(inbox, Input::Message(run, Box::new(message))).await,
                Ok(None) => return Input::Closed(run),
                Err(e) => return Input::Broken(run, format!("it broke the protocol: {e}")),
            }
        }
    };
    let write = async {
        link.write().await;
        // Only the reader knows whether everything has been read.
        std::future::pending::<Input>().await
    };
    let end = tokio::select! { end = read => end, end = write => end };
    send(inbox, end).await;
}

async fn send(inbox: &Sender<Incoming>, input: Input) {
    // The daemon is about to end if the inbox is closed.
    inbox.send(Incoming::Input(input)).await.ok();
}

/// How a process ended, as far as can be known of it. `oom`: the OOM killer has ended it, or one
/// like it.
fn how(child: Option<Child>, log: &std::path::Path, oom: impl FnOnce() -> Option<OomKill>) -> String {
    let elsewhere = "exit status went to another process, since the daemon was restarted";
    let ending = match child {
        // Its pidfd was readable, so this does not wait.
        Some(mut child) => child.wait().map_or_else(|e| e.to_string(), |status| ending(status, oom)),
        None => match oom() {
            Some(OomKill::OwnBound) => {
                "by the kernel's OOM killer: it used more memory than it was granted".to_owned()
            }
            Some(OomKill::Shortage) => {
                format!("probably by the kernel's OOM killer, which ended a process here; its {elsewhere}")
            }
            None => format!("its {elsewhere}"),
        },
    };
    with_log(ending, log)
}

fn with_log(ending: String, log: &std::path::Path) -> String {
    match last_line(log) {
        line if line.is_empty() => ending,
        line => format!("{ending}; its log ends with: {line}"),
    }
}
