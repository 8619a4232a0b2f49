//! The one request that may be on its way to the daemon, and its answer.

use std::time::{Duration, Instant};

use plimsoll_protocol::control::FromVmm;
use plimsoll_protocol::sharing::{DomainId, Found};
use plimsoll_units::{FrameNo, PageNo, ReturnReason};

use super::{Exchange, State};

/// How long a request waits for its answer. The daemon answers within milliseconds or is in
/// trouble. The pager waits too, and a VM from which memory is wanted back gives none meanwhile.
/// After a request without an answer no other is made until the answer has come.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A request on its way, or the right of a thread to make the next one.
pub(super) struct Request {
    id: u32,
    domain: DomainId,
    pages: Vec<PageNo>,
    /// The message while it is unsent.
    message: Option<FromVmm>,
    answer: Option<Answer>,
    /// The thread that made it waits no more.
    abandoned: bool,
}

/// What the daemon answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// To a look-up.
    Found(Vec<Found>),
    /// To an offer.
    Offered(Vec<Option<FrameNo>>),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The request was not made, and no daemon will get it.
    Unasked,
    /// The daemon may have got the request.
    Lost,
}

/// The right to make a request.
pub(crate) struct RequestSlot<'a> {
    exchange: &'a Exchange,
    /// The number of the request.
    pub(crate) id: u32,
}

impl Exchange {
    /// Waits for the right to make a request about `domain`. `None` if requests about it are not
    /// [open](Exchange::open), or an earlier one was abandoned and is not answered yet.
    pub(in crate::sharing) fn request_slot(&self, domain: DomainId) -> Option<RequestSlot<'_>> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut state = self.state();
        loop {
            if state.open != Some(domain) {
                return None;
            }
            match &state.request {
                None => break,
                Some(request) if request.abandoned || Instant::now() >= deadline => return None,
                Some(_) => state = self.wait_until(state, deadline),
            }
        }
        state.last_id = state.last_id.wrapping_add(1);
        let id = state.last_id;
        state.request =
            Some(Request { id, domain, pages: Vec::new(), message: None, answer: None, abandoned: false });
        Some(RequestSlot { exchange: self, id })
    }

    /// Takes the daemon's answer to request `id`.
    pub(crate) fn answer(&self, id: u32, answer: Answer) {
        let mut state = self.state();
        let len = match &answer {
            Answer::Found(found) => found.len(),
            Answer::Offered(frames) => frames.len(),
        };
        match &mut state.request {
            Some(request) if request.id == id && request.pages.len() == len => {
                request.answer = Some(answer);
                if request.abandoned {
                    state.undo_answer();
                }
            }
            _ => tracing::error!(id, "the daemon answered a question that was not asked: ignored"),
        }
        self.changed.notify_all();
    }
}

impl Request {
    pub(super) fn is_unsent(&self) -> bool {
        self.message.is_some()
    }

    /// The message that is to be sent.
    pub(super) fn message(&self) -> Option<FromVmm> {
        self.message.clone()
    }

    /// Takes note that the message has been sent.
    pub(super) fn sent(&mut self) {
        self.message = None;
    }
}

impl State {
    /// Gives back the frames that the answer to an abandoned request has named.
    fn undo_answer(&mut self) {
        let Some(Request { domain, pages, answer, .. }) = self.request.take() else { return };
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
        self.give_back(domain, &named, ReturnReason::Unused);
    }
}

impl RequestSlot<'_> {
    /// Makes the request, and waits for the answer.
    pub(crate) fn ask(&self, message: FromVmm, pages: Vec<PageNo>) -> Result<Answer, NoAnswer> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut state = self.exchange.state();
        let Some(request) = self.request(&mut state) else { return Err(NoAnswer::Unasked) };
        (request.message, request.pages) = (Some(message), pages);
        self.exchange.mailbox.wake();
        loop {
            let Some(request) = self.request(&mut state) else { return Err(NoAnswer::Lost) };
            if let Some(answer) = request.answer.take() {
                return Ok(answer);
            }
            if Instant::now() >= deadline {
                request.abandoned = true;
                self.exchange.changed.notify_all();
                return Err(NoAnswer::Lost);
            }
            state = self.exchange.wait_until(state, deadline);
        }
    }

    /// The slot's request, unless its connection has ended.
    fn request<'s>(&self, state: &'s mut State) -> Option<&'s mut Request> {
        state.request.as_mut().filter(|request| request.id == self.id)
    }
}

impl Drop for RequestSlot<'_> {
    fn drop(&mut self) {
        let mut state = self.exchange.state();
        if self.request(&mut state).is_some_and(|request| !request.abandoned) {
            state.request = None;
            self.exchange.changed.notify_all();
        }
    }
}
