//! Getting in touch with a VMM that an earlier daemon started.
//!
//! Each VM has a task of its own, so that none waits for another. A VMM that does not answer is
//! waited for on the same connection for as long as its process runs: it may be stopped, or its
//! host may be overloaded, and it answers when that is over. Whatever fails is tried again, at
//! first after [`FIRST_PAUSE`]. Only the end of the process ends the attempts.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use plimsoll_protocol::VmName;
use plimsoll_protocol::control::{Facts, FromVmm};
use plimsoll_protocol::sharing::DomainId;
use plimsoll_units::{Bytes, Pages};
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};

use crate::cgroup;
use crate::closing::Closing;
use crate::core::{Adopted, Input, RunId};
use crate::descriptors;
use crate::domains::HeldReferences;
use crate::incoming::{Incoming, Reached};
use crate::intake::{Intake, Talkers};
use crate::kernel_account;
use crate::launch::{Gone, Greeted, Look, RunDir, RunRecord, There, facts_of, identify_by_greeting, look};
use crate::link::Link;
use crate::process::Process;

/// How long a VMM may take to answer before users are told: it first reads what the last daemon
/// left unread.
const LATE: Duration = Duration::from_secs(3);
/// The pause after the first failure; each further one is twice as long. Shorter, and a failure
/// that stays keeps the daemon busy; longer, and one that passes leaves the VM without a daemon.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause: how long an operator may have to wait after having mended what fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(16);
/// How often the process is looked at meanwhile. That takes no descriptor: there may be none left.
const GLANCE: Duration = Duration::from_millis(200);

/// A VM to get in touch with.
#[derive(Debug)]
pub(crate) struct Reach {
    pub(crate) run: RunId,
    pub(crate) vm: VmName,
    pub(crate) directory: PathBuf,
    pub(crate) record: Result<RunRecord, String>,
    pub(crate) process: Result<Arc<Process>, String>,
    pub(crate) recorded: Option<Pages>,
    pub(crate) talkers: Talkers,
}

/// How the attempts ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Reached(Box<Reached>, Arc<Process>),
    /// The process is gone.
    Gone(String),
}

impl Reach {
    /// Tries until the VMM has answered or its process is gone. Tells `inbox` of what fails.
    pub(crate) async fn reach(mut self, inbox: &Sender<Incoming>) -> Outcome {
        let mut pause = FIRST_PAUSE;
        loop {
            let why = match self.attempt(inbox).await {
                Ok(outcome) => return outcome,
                Err(e) => format!("{e:#}"),
            };
            self.tell(inbox, Input::Unreachable(self.run, why)).await;
            let Ok(process) = &self.process else {
                // Only another look shows whether it has ended.
                sleep(FIRST_PAUSE).await;
                continue;
            };
            if timeout(pause, gone(process)).await.is_ok() {
                return Outcome::Gone("it ended while it was unreachable".to_owned());
            }
            pause = LONGEST_PAUSE.min(2 * pause);
        }
    }

    async fn attempt(&mut self, inbox: &Sender<Incoming>) -> anyhow::Result<Outcome> {
        if (self.process.is_err() || self.record.is_err())
            && let Some(outcome) = self.look_again(inbox).await
        {
            return Ok(outcome);
        }
        let process = Arc::clone(self.process.as_ref().map_err(|why| anyhow::anyhow!("{why}"))?);
        let record = self.record.clone().map_err(|why| anyhow::anyhow!("{why}"))?;
        let mut end = pin!(gone(&process));
        let mut speak = pin!(self.speak(&process, record));
        let mut late = pin!(sleep(LATE));
        let mut is_late = false;
        loop {
            tokio::select! {
                () = &mut end => return Ok(Outcome::Gone("it ended before it answered".to_owned())),
                reached = &mut speak => {
                    return Ok(Outcome::Reached(Box::new(reached?), Arc::clone(&process)));
                }
                () = &mut late, if !is_late => {
                    is_late = true;
                    let why = "its VMM does not answer".to_owned();
                    self.tell(inbox, Input::Unreachable(self.run, why)).await;
                }
            }
        }
    }

    /// What could not be read before may be readable by now.
    async fn look_again(&mut self, inbox: &Sender<Incoming>) -> Option<Outcome> {
        let There { outline, record, process, recorded, .. } = match look(&self.vm, &self.directory) {
            Look::There(there) => *there,
            Look::Gone(Gone::Process(how)) => return Some(Outcome::Gone(how)),
            Look::Gone(Gone::OtherBoot) => {
                return Some(Outcome::Gone("the machine was booted since".to_owned()));
            }
        };
        (self.record, self.recorded) = (record, recorded);
        if self.process.is_err() {
            self.process = match process {
                Err(why) if outline.identity.is_none() => self.identify(why).await,
                process => process,
            }
            .map(Arc::new);
            if let Ok(process) = &self.process {
                let identified = Incoming::Identified(self.run, Arc::clone(process));
                inbox.send(identified).await.ok(); // The daemon may be about to end.
            }
        }
        None
    }

    /// Finds the process of a VMM that no record names. A VMM without a guest is ended: the earlier
    /// daemon ended before it could send the configuration.
    async fn identify(&self, why: String) -> Result<Process, String> {
        descriptors::check().map_err(|e| format!("{e:#}"))?;
        let directory = self.directory.clone();
        let greeted = tokio::task::spawn_blocking(move || identify_by_greeting(&directory, LATE)).await;
        let Greeted { process, configured } = greeted
            .map_err(anyhow::Error::from)
            .and_then(|greeted| greeted)
            .map_err(|e| format!("{why}; {e:#}"))?;
        if !configured {
            process.kill();
        }
        Ok(process)
    }

    async fn speak(&self, process: &Arc<Process>, record: RunRecord) -> anyhow::Result<Reached> {
        descriptors::check()?;
        let mut directory = RunDir::adopt(self.directory.clone());
        directory.open_grant()?;
        let link = Link::new(directory.connect()?).context("cannot wait for the VMM's messages")?;
        let mut intake = Intake::new(self.talkers.clone());
        let Greeting { facts, references, first } = greet(&link, &mut intake, &record).await?;
        if facts.ram.1 == Bytes::ZERO {
            // The earlier daemon ended before it could send the configuration: there is no guest.
            process.kill();
            bail!("it had not been configured, and is ended");
        }
        let (asked, definition) = (Arc::clone(process), record.definition.clone());
        let (pid, beside) = (record.pid, record.beside);
        let look = move || (kernel_account::read(&asked, facts.ram), cgroup::adopt(&definition, pid, beside));
        let (kernel, bound) = tokio::task::spawn_blocking(look).await?;
        let adopted = Adopted {
            definition: record.definition.clone(),
            started: record.started,
            pid: record.pid,
            missing_jail: record.missing_jail.clone(),
            remarks: record.remarks.clone(),
            facts,
            recorded: self.recorded,
            swap: record.swap,
            kernel,
            domains: record.domains.clone(),
            former: record.former.clone(),
            references,
        };
        Ok(Reached { adopted, link, directory, record, bound, first })
    }

    async fn tell(&self, inbox: &Sender<Incoming>, input: Input) {
        inbox.send(Incoming::Input(input)).await.ok(); // The daemon may be about to end.
    }
}

/// Returns when `process` has ended.
pub(crate) async fn gone(process: &Process) {
    while !process.is_gone() {
        sleep(GLANCE).await;
    }
}

/// What a VMM says first.
struct Greeting {
    facts: Facts,
    references: Option<HeldReferences>,
    first: Option<FromVmm>,
}

async fn greet(link: &Link, intake: &mut Intake, record: &RunRecord) -> anyhow::Result<Greeting> {
    let hello = link.receive(intake).await.context("its VMM did not send its greeting")?;
    let facts = facts_of(hello.0, "stop the VM from inside, or kill it")?;
    if record.domains.is_empty() {
        // It cannot hold frames.
        return Ok(Greeting { facts, references: None, first: None });
    }
    match link.receive(intake).await.context("its VMM does not say whether it holds frames")? {
        (FromVmm::Pool(domain), fds) => {
            let references = held_references(link, intake, record, domain, fds).await;
            let references = references.context("its VMM does not say which frames it holds")?;
            Ok(Greeting { facts, references: Some(references), first: None })
        }
        (other, _) => Ok(Greeting { facts, references: None, first: Some(other) }),
    }
}

/// What a VMM holds of a domain, whose number and descriptor it has told.
async fn held_references(
    link: &Link,
    intake: &mut Intake,
    record: &RunRecord,
    domain: DomainId,
    mut fds: Vec<Closing<OwnedFd>>,
) -> anyhow::Result<HeldReferences> {
    let known = record.domains.iter().find(|known| known.id == domain);
    let known = known.with_context(|| format!("it was never told of domain {}", domain.0))?;
    let pool = fds.pop().context("no descriptor came with them: the limit of open files may be reached")?;
    let most = Pages::floor(record.definition.size).0;
    let mut holds = Vec::new();
    loop {
        match link.receive(intake).await?.0 {
            FromVmm::Holds { pages, last } => {
                // Each message names a page, so there are no more messages than pages.
                ensure!(last || !pages.is_empty(), "it says that frames follow, and names none");
                holds.extend(pages);
                ensure!(holds.len() as u64 <= most, "it holds more frames than it has pages");
                if last {
                    return Ok(HeldReferences { domain: known.clone(), pool, holds });
                }
            }
            other => bail!("its VMM sent {other:?} in place of the frames that it holds"),
        }
    }
}

#[cfg(test)]
mod tests;
