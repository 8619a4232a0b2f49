//! Watching over one VMM: its messages and its end.

use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use tokio::io::Interest;
use tokio::sync::mpsc::Sender;

use crate::core::{Input, RunId};
use crate::daemon::Incoming;
use crate::epoll::register;
use crate::link::{Intake, Link};
use crate::process::{ending, last_line};

/// How long to read on after the process' end: what it sent is in the socket already, unless another process holds the
/// other end, which only a hostile VMM arranges.
const DRAIN: Duration = Duration::from_secs(1);

/// What to watch.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) run: RunId,
    /// Readable when the process has ended.
    pub(crate) pidfd: std::os::fd::OwnedFd,
    /// `None` where an earlier daemon started it.
    pub(crate) child: Option<Child>,
    /// `None` where it cannot be spoken to.
    pub(crate) link: Option<Link>,
    pub(crate) log: PathBuf,
}

/// Passes on what the VMM says, in order, and at last that its process is gone: after everything it had said.
pub(crate) async fn watch(watch: Watch, inbox: Sender<Incoming>) {
    let Watch { run, pidfd, child, link, log } = watch;
    let ended = async {
        match register(pidfd, Interest::READABLE) {
            Ok(pidfd) => pidfd.readable().await.map(drop),
            Err(e) => Err(e),
        }
    };
    tokio::pin!(ended);
    let result = match link {
        None => ended.await,
        Some(link) => {
            let talk = talk(run, &link, &inbox);
            tokio::pin!(talk);
            tokio::select! {
                () = &mut talk => ended.await,
                result = &mut ended => {
                    tokio::time::timeout(DRAIN, talk).await.ok(); // It may not be its VMM's any more.
                    result
                }
            }
        }
    };
    if let Err(e) = result {
        tracing::error!(run = run.0, "cannot watch its process, which counts as gone: {e}");
    }
    send(&inbox, Input::Exited(run, how(child, &log))).await;
}

async fn talk(run: RunId, link: &Link, inbox: &Sender<Incoming>) {
    let mut intake = Intake::new();
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
    // The daemon is about to end where nobody receives any more.
    inbox.send(Incoming::Input(input)).await.ok();
}

/// How a process ended, as far as can be known of it.
fn how(child: Option<Child>, log: &std::path::Path) -> String {
    let ending = match child {
        // Its pidfd was readable, so this does not wait.
        Some(mut child) => child.wait().map_or_else(|e| e.to_string(), ending),
        None => "its exit status went to another process, since the daemon was restarted".to_owned(),
    };
    match last_line(log) {
        line if line.is_empty() => ending,
        line => format!("{ending}; its log ends with: {line}"),
    }
}
