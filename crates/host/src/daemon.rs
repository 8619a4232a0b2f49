//! The loop that feeds inputs to the [`Core`] and carries out its effects.
//!
//! The loop runs on one thread. What may take long is done beside it, and comes back as an input:
//! launches, records, the kernel's account, and shared pages. [`effects`] carries out what the
//! core decides, [`adoption`] takes up VMs of an earlier daemon, [`kernel`] asks for that account,
//! [`lives`] launches, [`growth`] has files grow, [`crate::domains`] has the thread for shared
//! pages.

mod adoption;
mod effects;
mod growth;
mod kernel;
mod lives;
mod service;
mod woken;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use plimsoll_protocol::VmName;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use self::service::tick_of;
use self::woken::Woken;
use crate::cgroup::MemoryBound;
use crate::cids::Cids;
use crate::core::{Clock, Core, Failure, FailureKind, Input, Request, RequestId, RunId};
use crate::domains::Worker;
use crate::event_log::EventLog;
use crate::incoming::{CallResult, Incoming};
use crate::intake::Talkers;
use crate::launch::{RunDir, RunRecord, Site};
use crate::link::Link;
use crate::oom::OomWatch;
use crate::process::Process;
use crate::processors::{Busy, Times};
use crate::rota::Rota;
use crate::saver::Saver;
use crate::service_manager;
use crate::turns::{TurnBudget, Turns};
use crate::uids::Uids;

/// Messages that may wait for the daemon. A VMM or client that finds the inbox full waits in turn
/// with the others.
const INBOX: usize = 256;

/// How long requests wait for adopted VMs to answer, so that a command right after a restart finds
/// them as they were. A healthy VMM answers within milliseconds; users should not notice that they
/// wait for one that is not.
const SETTLING: Duration = Duration::from_secs(1);

/// A way to ask the daemon.
#[derive(Clone, Debug)]
pub(crate) struct Caller(mpsc::Sender<Incoming>);

impl Caller {
    /// A way to ask what receives from `sender`.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn to(sender: mpsc::Sender<Incoming>) -> Self {
        Self(sender)
    }

    /// Asks and waits for the answer.
    pub(crate) async fn call(&self, request: Request) -> CallResult {
        let (sender, answer) = oneshot::channel();
        let ending = || Failure::new(FailureKind::Internal, "the daemon is about to end: try again");
        self.0.send(Incoming::Call(Box::new(request), sender)).await.map_err(|_| ending())?;
        answer.await.unwrap_or_else(|_| Err(ending()))
    }
}

/// What a run has, if it has it, and no other may have.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    /// Its user.
    uid: Option<u32>,
    /// The context identifier of its vsock.
    cid: Option<u32>,
}

/// What belongs to one run.
#[derive(Debug)]
struct Live {
    vm: VmName,
    /// `None` where its VMM is unreachable.
    link: Option<Link>,
    /// `None` where it is unknown.
    process: Option<Arc<Process>>,
    directory: RunDir,
    own: Own,
    /// `None` where it has not been read in full yet.
    record: Option<RunRecord>,
    /// The core has ended it: it is killed as soon as its process is known.
    killed: bool,
    /// The run record names the domain that it was last told to share in.
    may_map: bool,
    /// `None`: the kernel does not hold it to its grant, as far as is known.
    bound: Option<Arc<MemoryBound>>,
}

/// Requests that wait until adopted VMs have answered or are known to be late.
#[derive(Debug)]
struct Settling {
    /// VMs that have not answered and are not late.
    awaited: BTreeSet<RunId>,
    until: Instant,
    calls: Vec<(Box<Request>, oneshot::Sender<CallResult>)>,
}

/// The daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    core: Core,
    site: Arc<Site>,
    saver: Saver,
    event_log: EventLog,
    /// The id of the last event.
    news: watch::Sender<u64>,
    /// The thread for shared pages.
    worker: Worker,
    uids: Uids,
    cids: Cids,
    live: HashMap<RunId, Live>,
    launching: HashMap<RunId, Own>,
    /// `None`: all requests are answered at once.
    settling: Option<Settling>,
    calls: HashMap<RequestId, oneshot::Sender<CallResult>>,
    last_call: u64,
    rota: Rota,
    busy: Busy,
    oom: Arc<OomWatch>,
    talkers: Talkers,
    turns: Turns,
    /// What the service manager was told last of what the daemon does.
    status: String,
    /// A reading of the memory of processes is under way.
    asking_processes: bool,
    /// A reading of the memory of guests is under way.
    asking_guests: bool,
    sender: mpsc::Sender<Incoming>,
    inbox: mpsc::Receiver<Incoming>,
}

impl Daemon {
    /// A daemon that knows no running VM yet. Must be called within a runtime.
    ///
    /// # Errors
    /// The kernel has no thread for shared pages.
    pub(crate) fn new(core: Core, site: Site, uids: Uids, event_log: EventLog) -> io::Result<Self> {
        let (sender, inbox) = mpsc::channel(INBOX);
        let reports = sender.clone();
        let report =
            move |report| reports.blocking_send(Incoming::Input(Input::Reported(Box::new(report)))).is_ok();
        let oom = OomWatch::start(site.cgroups.as_ref().ok().cloned());
        Ok(Self {
            core,
            saver: Saver::start(site.paths.clone(), sender.clone()),
            event_log,
            news: watch::Sender::new(0),
            worker: Worker::start(report)?,
            site: Arc::new(site),
            uids,
            cids: Cids::default(),
            live: HashMap::new(),
            launching: HashMap::new(),
            settling: None,
            calls: HashMap::new(),
            last_call: 0,
            rota: Rota::default(),
            busy: Busy::default(),
            oom: Arc::new(oom),
            talkers: Talkers::default(),
            turns: Turns::new(Instant::now()),
            status: String::new(),
            asking_processes: false,
            asking_guests: false,
            sender,
            inbox,
        })
    }

    /// A way to ask this daemon.
    pub(crate) fn caller(&self) -> Caller {
        Caller(self.sender.clone())
    }

    /// The id of the last event that there was, as it rises.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// A way to send something to this daemon's loop.
    pub(crate) fn inbox(&self) -> mpsc::Sender<Incoming> {
        self.sender.clone()
    }

    fn call(&mut self, request: Box<Request>, answer: oneshot::Sender<CallResult>) {
        self.last_call += 1;
        let id = RequestId(self.last_call);
        self.calls.insert(id, answer);
        self.handle(Input::Request(id, request));
    }

    /// Runs until `end` is ready.
    ///
    /// # Errors
    /// The thread for shared pages has ended. A restarted daemon finds the frames again.
    pub(crate) async fn run(mut self, end: impl Future<Output = ()>) -> anyhow::Result<()> {
        tokio::pin!(end);
        let mut glance = tokio::time::interval(Busy::EVERY);
        glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut second = tokio::time::interval(Rota::PERIOD);
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut alive = service_manager::watchdog_interval().map(tokio::time::interval);
        self.turn(Woken::Tick);
        while !self.worker.has_ended() {
            let settled =
                self.settling.as_ref().map(|settling| tokio::time::sleep_until(settling.until.into()));
            let settled = async move {
                match settled {
                    Some(settled) => settled.await,
                    None => std::future::pending().await,
                }
            };
            let tick = tokio::time::sleep_until(self.core.due().into());
            let woken = tokio::select! {
                () = &mut end => return Ok(()),
                incoming = self.inbox.recv() => match incoming {
                    Some(incoming) => Woken::Incoming(incoming),
                    None => return Ok(()),
                },
                () = tick => Woken::Tick,
                () = settled => Woken::Settled,
                _ = second.tick() => Woken::Second,
                _ = glance.tick() => Woken::Glance,
                () = tick_of(alive.as_mut()) => Woken::Alive,
            };
            self.turn(woken);
        }
        anyhow::bail!("the thread for shared pages has ended: restart plimsolld; VMs run on")
    }

    /// One turn of the loop. Tasks that read from VMMs and users wait for it.
    fn turn(&mut self, woken: Woken) {
        let begin = Instant::now();
        match woken {
            Woken::Incoming(incoming) => self.take_all(incoming, begin),
            Woken::Tick => self.handle(Input::Tick),
            Woken::Settled => self.answer_the_waiting(),
            Woken::Second => {
                self.ask_for_processes();
                self.ask_for_guests();
                self.tell_status();
            }
            Woken::Glance => {
                if let Some(processors) = Times::read().and_then(|times| self.busy.observe(times)) {
                    self.handle(Input::Processors(processors));
                }
            }
            Woken::Alive => service_manager::alive(),
        }
        if self.core.has_to_serve() {
            self.handle(Input::Serve);
        }
        if let Some(turns) = self.turns.took(begin, Instant::now()) {
            self.handle(Input::Turned(turns));
        }
    }

    /// Takes what has come in, as far as one turn may.
    fn take_all(&mut self, first: Incoming, begin: Instant) {
        let mut budget = TurnBudget::new(begin, INBOX);
        let mut next = Some(first);
        while let Some(incoming) = next {
            self.take(incoming);
            next = if budget.is_left(Instant::now()) { self.inbox.try_recv().ok() } else { None };
        }
    }

    fn take(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Input(input) => {
                let settled = match &input {
                    Input::Unreachable(run, _) | Input::Exited(run, _) => Some(*run),
                    _ => None,
                };
                if let Input::Reported(report) = &input
                    && let Some(link) = report.asker.and_then(|run| self.link(run))
                {
                    link.answered();
                }
                self.handle(input);
                if let Some(run) = settled {
                    self.settled(run);
                }
            }
            Incoming::Call(request, answer) => match &mut self.settling {
                Some(settling) => settling.calls.push((request, answer)),
                None => self.call(request, answer),
            },
            Incoming::Identified(run, process) => self.identified(run, process),
            Incoming::Reached(run, reached) => self.reached(run, *reached),
            Incoming::Launched(run, result) => self.launched(run, result),
            Incoming::Reloaded(reloaded, done) => self.take_up(*reloaded, done),
            Incoming::Processes(processes, usable) => {
                self.asking_processes = false;
                self.handle(Input::Processes(processes));
                if let Some(usable) = usable {
                    self.handle(Input::Usable(usable));
                }
            }
            Incoming::Guests { began, guests, cost } => {
                self.asking_guests = false;
                self.rota.took(began, guests.iter().map(|(run, _)| *run), cost);
                self.handle(Input::Guests(guests));
            }
        }
    }

    fn handle(&mut self, input: Input) {
        let clock = Clock { now: Instant::now(), at: Timestamp::now() };
        for effect in self.core.handle(clock, input) {
            self.carry_out(effect);
        }
    }
}
