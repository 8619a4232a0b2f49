//! What is said about frames between the VM's threads and the daemon: one request at a time, and
//! references that are given back.
//!
//! The daemon's account of the references that this VM holds must never lack one that is in use:
//! the daemon would empty the frame under the guest. Hence:
//! - An answer that comes after its thread has stopped waiting is given back page by page.
//! - Without a daemon nothing is kept here. The next daemon first receives the list of held
//!   references ([`HeldReferences`]), and no thread may be about to use one that is missing from
//!   the list. So a thread that can be given references has a [`ReferencePermit`], and before the
//!   control thread says `Hello` it waits until no permit is out ([`Exchange::suspend`]). For the
//!   same reason the grant in `Hello` is right: a thread that offers pages has lowered the grant
//!   for them, and by then either the offer was sent over an earlier connection or the grant is
//!   back where it was.
//! - No request goes to a new daemon before that has said what is shared ([`Exchange::open`]),
//!   because its window is another one.
//!
//! | file | is |
//! |---|---|
//! | `mod.rs` | the permits, the daemon that is connected, and which message is next |
//! | `request.rs` | the request slot: the one request that may be on its way, and its answer |
//! | `returns.rs` | the return queue: references that are given back |

mod request;
mod returns;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use plimsoll_protocol::control::FromVmm;
use plimsoll_protocol::sharing::{DomainId, MAX_BATCH};
use plimsoll_sys::lock;
use plimsoll_units::{FrameNo, PageNo, ReturnReason};

use self::request::Request;
pub(crate) use self::request::{Answer, NoAnswer};
use self::returns::ReturnQueue;
use crate::mailbox::Mailbox;

/// The exchange of one VM. See the module.
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
    /// The domain that requests may be about.
    open: Option<DomainId>,
    request: Option<Request>,
    last_id: u32,
    /// The pool, and the held references: what a new daemon has still to be told, in this order.
    pool: Option<(DomainId, Arc<OwnedFd>)>,
    holds: Option<VecDeque<(PageNo, FrameNo)>>,
    returns: ReturnQueue,
    /// Permits that are out.
    permits: usize,
    suspended: bool,
}

/// What a VM has of its domain.
#[derive(Debug)]
pub(crate) struct HeldReferences {
    pub(crate) domain: DomainId,
    /// The frames.
    pub(crate) pool: Arc<OwnedFd>,
    /// All references that are, or may come to be, in use.
    pub(crate) holds: Vec<(PageNo, FrameNo)>,
}

/// While it lives, references may be taken and used. Its owner must not wait for a grant.
pub(crate) struct ReferencePermit<'a>(&'a Exchange);

impl Exchange {
    /// An exchange without a daemon. `mailbox` wakes the control thread when there is something to
    /// send.
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
    /// Begins a stretch of work in which references may be taken. Waits while permits are
    /// suspended.
    pub(crate) fn permit_references(&self) -> ReferencePermit<'_> {
        let mut state = self.state();
        while state.suspended {
            state = self.wait(state);
        }
        state.permits += 1;
        ReferencePermit(self)
    }

    /// Lets requests be about `domain`, if the daemon of that connection is still there.
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

    /// Lets no further requests be made.
    pub(super) fn close(&self) {
        self.state().open = None;
        self.changed.notify_all();
    }

    /// Gives back the references of `pages` to frames of `domain`. Never blocks.
    pub(super) fn give_back(&self, domain: DomainId, pages: &[(PageNo, FrameNo)], reason: ReturnReason) {
        if self.state().give_back(domain, pages, reason) {
            self.mailbox.wake();
        }
    }
}

/// For the control thread.
impl Exchange {
    /// Lets no permit begin until [`Exchange::resume`]. Returns false while some are still out: the
    /// mailbox wakes the control thread when the last one has ended.
    pub(crate) fn suspend(&self) -> bool {
        let mut state = self.state();
        state.suspended = true;
        state.permits == 0
    }

    /// Lets permits begin again.
    pub(crate) fn resume(&self) {
        self.state().suspended = false;
        self.changed.notify_all();
    }

    /// A daemon has connected: what is given back from now on is kept for it.
    pub(crate) fn connected(&self) {
        let mut state = self.state();
        debug_assert!(state.suspended && state.permits == 0, "no thread may be taking references");
        state.connected = true;
        state.connection += 1;
    }

    /// Has the new daemon told what is held, before anything else.
    pub(crate) fn announce(&self, held: HeldReferences) {
        let mut state = self.state();
        state.pool = Some((held.domain, held.pool));
        state.holds = Some(held.holds.into());
    }

    /// The number of the connection.
    pub(crate) fn connection(&self) -> u64 {
        self.state().connection
    }

    /// The daemon has disconnected: threads that wait for it get no answer.
    pub(crate) fn disconnected(&self) {
        let mut state = self.state();
        let State { connection, last_id, permits, suspended, .. } = *state;
        *state = State { connection, last_id, permits, suspended, ..State::default() };
        self.changed.notify_all();
    }

    /// Whether part of what a new daemon must be told first is still unsent.
    pub(crate) fn is_announcing(&self) -> bool {
        self.state().is_announcing()
    }

    /// Whether there is a message to be sent.
    pub(crate) fn has_next(&self) -> bool {
        let state = self.state();
        let asked = state.request.as_ref().is_some_and(Request::is_unsent);
        state.is_announcing() || !state.returns.is_empty() || asked
    }

    /// The message that is to be sent next. What is given back comes before the request, which may
    /// be about the same pages.
    pub(crate) fn next(&self) -> Option<FromVmm> {
        let state = self.state();
        if let Some((domain, _)) = &state.pool {
            return Some(FromVmm::Pool(*domain));
        }
        if let Some(holds) = &state.holds {
            let pages: Vec<_> = holds.iter().take(MAX_BATCH).copied().collect();
            return Some(FromVmm::Holds { last: pages.len() == holds.len(), pages });
        }
        state.returns.message().or_else(|| state.request.as_ref()?.message())
    }

    /// The descriptor that goes with [`FromVmm::Pool`].
    pub(crate) fn pool(&self) -> Option<Arc<OwnedFd>> {
        self.state().pool.as_ref().map(|(_, fd)| Arc::clone(fd))
    }

    /// Takes note that [`Exchange::next`]'s message has been sent.
    pub(crate) fn sent(&self, message: &FromVmm) {
        let mut state = self.state();
        match message {
            FromVmm::Pool(_) => state.pool = None,
            FromVmm::Holds { last: true, .. } => state.holds = None,
            FromVmm::Holds { pages, .. } => {
                state.holds.iter_mut().for_each(|holds| drop(holds.drain(..pages.len().min(holds.len()))));
            }
            FromVmm::GiveBack { pages, .. } => state.returns.sent(pages.len()),
            FromVmm::LookUp { .. } | FromVmm::Offer { .. } => {
                state.request.iter_mut().for_each(Request::sent);
            }
            _ => {}
        }
    }
}

impl State {
    fn is_with(&self, connection: u64) -> bool {
        self.connected && self.connection == connection
    }

    fn is_announcing(&self) -> bool {
        self.pool.is_some() || self.holds.is_some()
    }

    /// Returns whether the return queue was empty before. Without a daemon nothing is kept.
    fn give_back(&mut self, domain: DomainId, pages: &[(PageNo, FrameNo)], reason: ReturnReason) -> bool {
        self.connected && self.returns.push(domain, pages, reason)
    }
}

impl Drop for ReferencePermit<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.permits -= 1;
        if state.suspended && state.permits == 0 {
            self.0.mailbox.wake();
        }
    }
}
