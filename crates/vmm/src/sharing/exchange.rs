use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plimsoll_protocol::control::FromVmm;
use plimsoll_protocol::sharing::{DomainId, Found, MAX_BATCH};
use plimsoll_sys::lock;
use plimsoll_units::{FrameNo, PageNo};

use crate::control::Mailbox;

/// How long a question waits for its answer. The daemon answers within milliseconds or is in
/// trouble; the pager waits, too, and a VM from which memory is wanted back gives nothing
/// meanwhile. Whoever was left without an answer asks nothing more until it has come.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is said about frames between the VM's threads and the daemon: one question at a time, and
/// references that are given back.
///
/// The daemon's account of the references that this VM holds must never be short of one that is in
/// use: the frame would be emptied under the guest. Hence:
/// - An answer that nobody waits for any more is given back page by page when it comes.
/// - While there is no daemon nothing is kept here. The next one hears what is held in the first
///   place ([`Stock`]), and nobody may be about to use a reference that is not in that list. So
///   whatever can be given references runs in a [`Shift`], and before the control thread says
///   `Hello` it has all of them end ([`Exchange::halt`]). It is also why the grant in `Hello` is
///   right: who offers pages has lowered it for them, and either the offer went out over an earlier
///   connection or the grant is back where it was.
/// - No question is asked of a new daemon before it has said what is shared ([`Exchange::open`]),
///   as its window is another one.
pub(crate) struct Exchange {
    state: Mutex<State>,
    changed: Condvar,
    mailbox: Arc<Mailbox>,
}

#[derive(Default)]
struct State {
    /// Whether a daemon is connected, and how many have been.
    connected: bool,
    connection: u64,
    /// The domain about which it can be asked.
    open: Option<DomainId>,
    question: Option<Question>,
    last_id: u32,
    /// To be said, in this order: which frames there are, which are held (until all has been said),
    /// which are not any more.
    pool: Option<(DomainId, Arc<OwnedFd>)>,
    holds: Option<VecDeque<(PageNo, FrameNo)>>,
    given_back: VecDeque<GivenBack>,
    shifts: usize,
    halted: bool,
}

/// One question on its way, or somebody's right to ask the next one.
struct Question {
    id: u32,
    domain: DomainId,
    pages: Vec<PageNo>,
    /// To be sent.
    message: Option<FromVmm>,
    answer: Option<Answer>,
    /// Nobody waits for the answer any more.
    abandoned: bool,
}

/// References of one kind. Not more than a VM has pages in all: each is given back once, and the
/// daemon names no frame for a page before it has read that the last one was given back.
struct GivenBack {
    domain: DomainId,
    mismatched: bool,
    pages: Vec<(PageNo, FrameNo)>,
}

/// What the daemon answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// To a look-up.
    Found(Vec<Found>),
    /// To an offer.
    Offered(Vec<Option<FrameNo>>),
}

/// What a VM has of its domain.
#[derive(Debug)]
pub(crate) struct Stock {
    pub(crate) domain: DomainId,
    /// The frames.
    pub(crate) pool: Arc<OwnedFd>,
    /// All references that are, or may come to be, in use.
    pub(crate) holds: Vec<(PageNo, FrameNo)>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// The daemon never gets to hear the question.
    Unasked,
    /// It has heard it, perhaps.
    Lost,
}

/// While it lives, references may be taken and used. It must not wait for a grant.
pub(crate) struct Shift<'a>(&'a Exchange);

/// The right to ask.
pub(super) struct Turn<'a> {
    exchange: &'a Exchange,
    pub(super) id: u32,
}

impl Exchange {
    /// One without a daemon. Mail wakes the control thread when there is something to send.
    pub(crate) fn new(mailbox: Arc<Mailbox>) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), mailbox }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until<'a>(&self, state: MutexGuard<'a, State>, deadline: Instant) -> MutexGuard<'a, State> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// For the threads that share pages.
impl Exchange {
    /// Begins a stretch of work in which references may be taken.
    pub(crate) fn shift(&self) -> Shift<'_> {
        let mut state = self.state();
        while state.halted {
            state = self.wait(state);
        }
        state.shifts += 1;
        Shift(self)
    }

    /// `domain` is what can be asked about, if the daemon that said so is still there.
    pub(super) fn open(&self, domain: DomainId, connection: u64) {
        let mut state = self.state();
        if state.is_with(connection) {
            state.open = Some(domain);
        }
    }

    /// Whether the daemon of that connection is still there.
    pub(super) fn is_with(&self, connection: u64) -> bool {
        self.state().is_with(connection)
    }

    /// Nothing can be asked any more.
    pub(super) fn shut(&self) {
        self.state().open = None;
        self.changed.notify_all();
    }

    /// The right to ask about a domain, after those who were first; `None` where there is nobody to
    /// answer.
    pub(super) fn turn(&self, domain: DomainId) -> Option<Turn<'_>> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state();
        loop {
            if state.open != Some(domain) {
                return None;
            }
            match &state.question {
                None => break,
                Some(question) if question.abandoned || Instant::now() >= deadline => return None,
                Some(_) => state = self.wait_until(state, deadline),
            }
        }
        state.last_id = state.last_id.wrapping_add(1);
        let id = state.last_id;
        state.question =
            Some(Question { id, domain, pages: Vec::new(), message: None, answer: None, abandoned: false });
        Some(Turn { exchange: self, id })
    }

    /// These pages need these frames of a domain no more. Never blocks.
    pub(super) fn give_back(&self, domain: DomainId, pages: &[(PageNo, FrameNo)], mismatched: bool) {
        if self.state().give_back(domain, pages, mismatched) {
            self.mailbox.nudge();
        }
    }
}

/// For the control thread.
impl Exchange {
    /// Has all shifts end and none begin, until [`Exchange::go_on`]. False where some have not
    /// ended yet: there will be mail when they have.
    pub(crate) fn halt(&self) -> bool {
        let mut state = self.state();
        state.halted = true;
        state.shifts == 0
    }

    /// Lets shifts begin again.
    pub(crate) fn go_on(&self) {
        self.state().halted = false;
        self.changed.notify_all();
    }

    /// A daemon is there: what is given back is kept for it from now on.
    pub(crate) fn connected(&self) {
        let mut state = self.state();
        debug_assert!(state.halted && state.shifts == 0, "nobody may be taking references");
        state.connected = true;
        state.connection += 1;
    }

    /// What it is to hear in the first place.
    pub(crate) fn take_stock(&self, stock: Stock) {
        let mut state = self.state();
        state.pool = Some((stock.domain, stock.pool));
        state.holds = Some(stock.holds.into());
    }

    /// The number of the connection.
    pub(crate) fn connection(&self) -> u64 {
        self.state().connection
    }

    /// The daemon is gone. Whoever waits for it does so in vain.
    pub(crate) fn disconnected(&self) {
        let mut state = self.state();
        let State { connection, last_id, shifts, halted, .. } = *state;
        *state = State { connection, last_id, shifts, halted, ..State::default() };
        self.changed.notify_all();
    }

    /// The daemon's answer to a question.
    pub(crate) fn answer(&self, id: u32, answer: Answer) {
        let mut state = self.state();
        let len = match &answer {
            Answer::Found(found) => found.len(),
            Answer::Offered(frames) => frames.len(),
        };
        match &mut state.question {
            Some(question) if question.id == id && question.pages.len() == len => {
                question.answer = Some(answer);
                if question.abandoned {
                    state.undo_answer();
                }
            }
            _ => tracing::error!(id, "the daemon answered a question that was not asked: ignored"),
        }
        self.changed.notify_all();
    }

    /// Whether what a new daemon is to hear in the first place has not been said yet.
    pub(crate) fn has_stock(&self) -> bool {
        let state = self.state();
        state.pool.is_some() || state.holds.is_some()
    }

    /// Whether there is a message to be sent.
    pub(crate) fn has_next(&self) -> bool {
        let state = self.state();
        let asked = state.question.as_ref().is_some_and(|question| question.message.is_some());
        state.pool.is_some() || state.holds.is_some() || !state.given_back.is_empty() || asked
    }

    /// The message that is to be sent next. What is given back comes before what is asked, which
    /// may be about the same pages.
    pub(crate) fn next(&self) -> Option<FromVmm> {
        let state = self.state();
        if let Some((domain, _)) = &state.pool {
            return Some(FromVmm::Pool(*domain));
        }
        if let Some(holds) = &state.holds {
            let pages: Vec<_> = holds.iter().take(MAX_BATCH).copied().collect();
            return Some(FromVmm::Holds { last: pages.len() == holds.len(), pages });
        }
        if let Some(GivenBack { domain, mismatched, pages }) = state.given_back.front() {
            let (domain, pages, mismatched) = (*domain, pages.clone(), *mismatched);
            return Some(FromVmm::GiveBack { domain, pages, mismatched });
        }
        state.question.as_ref()?.message.clone()
    }

    /// The descriptor that goes with [`FromVmm::Pool`].
    pub(crate) fn pool(&self) -> Option<Arc<OwnedFd>> {
        self.state().pool.as_ref().map(|(_, fd)| Arc::clone(fd))
    }

    /// [`Exchange::next`]'s message has been sent.
    pub(crate) fn sent(&self, message: &FromVmm) {
        let mut state = self.state();
        match message {
            FromVmm::Pool(_) => state.pool = None,
            FromVmm::Holds { last: true, .. } => state.holds = None,
            FromVmm::Holds { pages, .. } => {
                state.holds.iter_mut().for_each(|holds| drop(holds.drain(..pages.len().min(holds.len()))));
            }
            FromVmm::GiveBack { pages: sent, .. } => {
                // More may have been added behind them meanwhile.
                if let Some(front) = state.given_back.front_mut() {
                    front.pages.drain(..sent.len().min(front.pages.len()));
                    if front.pages.is_empty() {
                        state.given_back.pop_front();
                    }
                }
            }
            FromVmm::LookUp { .. } | FromVmm::Offer { .. } => {
                state.question.iter_mut().for_each(|question| question.message = None);
            }
            _ => {}
        }
    }
}

impl State {
    fn is_with(&self, connection: u64) -> bool {
        self.connected && self.connection == connection
    }

    /// Returns whether there was nothing before.
    fn give_back(&mut self, domain: DomainId, mut pages: &[(PageNo, FrameNo)], mismatched: bool) -> bool {
        if !self.connected {
            return false;
        }
        let first = self.given_back.is_empty();
        while !pages.is_empty() {
            let fits = |last: &GivenBack| {
                (last.domain, last.mismatched) == (domain, mismatched) && last.pages.len() < MAX_BATCH
            };
            if !self.given_back.back().is_some_and(fits) {
                self.given_back.push_back(GivenBack { domain, mismatched, pages: Vec::new() });
            }
            let last = self.given_back.back_mut().expect("one was added if there was none");
            let (taken, left) = pages.split_at(pages.len().min(MAX_BATCH - last.pages.len()));
            last.pages.extend_from_slice(taken);
            pages = left;
        }
        first
    }

    /// Gives back what the answer to an abandoned question has named.
    fn undo_answer(&mut self) {
        let Some(Question { domain, pages, answer, .. }) = self.question.take() else { return };
        let frames: Vec<_> = match answer {
            Some(Answer::Found(found)) => found
                .into_iter()
                .map(|found| if let Found::Frame(frame) = found { Some(frame) } else { None })
                .collect(),
            Some(Answer::Offered(frames)) => frames,
            None => return,
        };
        let named: Vec<_> =
            pages.into_iter().zip(frames).filter_map(|(page, frame)| Some((page, frame?))).collect();
        self.give_back(domain, &named, false);
    }
}

impl Turn<'_> {
    /// Asks, and waits for the answer.
    pub(super) fn ask(&self, message: FromVmm, pages: Vec<PageNo>) -> Result<Answer, NoAnswer> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.exchange.state();
        let Some(question) = self.mine(&mut state) else { return Err(NoAnswer::Unasked) };
        (question.message, question.pages) = (Some(message), pages);
        self.exchange.mailbox.nudge();
        loop {
            let Some(question) = self.mine(&mut state) else { return Err(NoAnswer::Lost) };
            if let Some(answer) = question.answer.take() {
                return Ok(answer);
            }
            if Instant::now() >= deadline {
                question.abandoned = true;
                self.exchange.changed.notify_all();
                return Err(NoAnswer::Lost);
            }
            state = self.exchange.wait_until(state, deadline);
        }
    }

    /// The question, unless its connection has ended.
    fn mine<'s>(&self, state: &'s mut State) -> Option<&'s mut Question> {
        state.question.as_mut().filter(|question| question.id == self.id)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.exchange.state();
        if self.mine(&mut state).is_some_and(|question| !question.abandoned) {
            state.question = None;
            self.exchange.changed.notify_all();
        }
    }
}

impl Drop for Shift<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.shifts -= 1;
        if state.halted && state.shifts == 0 {
            self.0.mailbox.nudge();
        }
    }
}
