use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::ApiError;
use super::gate::Peer;
use super::openapi::{Part, Taken};
use super::pace::Pace;
use crate::history;

/// Most streams of events of a listener at a time: some pages and scripts. Each is a connection,
/// and one question to the daemon for each event; more would be noticed by VMs.
pub(super) const MOST_STREAMS: usize = 32;
/// Most samples of histories that are under way to clients of a listener: two whole records, each
/// of which takes some 100 MB until it is read. With more, clients that do not read take gigabytes;
/// with fewer, one of them keeps all others from a whole record.
const MOST_SAMPLES: usize = 2 * history::MOST;

/// The sender of a request. The server adds it to each request.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) peer: Peer,
    pub(super) listener: Arc<Listener>,
}

/// What all clients of a listener share. Those of another listener lose nothing by what they take:
/// the unix socket is the operator's way in when clients on TCP take all that is theirs.
#[derive(Debug)]
pub(super) struct Listener {
    /// The pace of changes.
    pub(super) changes: Pace,
    /// The pace of questions that are costly.
    pub(super) questions: Pace,
    streams: Arc<Semaphore>,
    samples: Arc<Semaphore>,
    /// One answer at a time that is computed beside the daemon's thread: each keeps a processor
    /// busy.
    work: Arc<Semaphore>,
}

impl Listener {
    pub(super) fn new() -> Arc<Self> {
        let room = |places| Arc::new(Semaphore::new(places));
        Arc::new(Self {
            changes: Pace::of_changes(),
            questions: Pace::of_questions(),
            streams: room(MOST_STREAMS),
            samples: room(MOST_SAMPLES),
            work: room(1),
        })
    }

    /// A place for a stream of events.
    ///
    /// # Errors
    /// All are taken.
    pub(super) fn stream(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let text = format!("{MOST_STREAMS} clients follow the events already: end one of them, or poll");
            ApiError::busy(text)
        })
    }

    /// A place for so many samples on their way to a client, until it has read them.
    ///
    /// # Errors
    /// Too many are on their way to others.
    pub(super) fn samples(&self, samples: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let places = u32::try_from(samples.min(MOST_SAMPLES)).unwrap_or(u32::MAX);
        Arc::clone(&self.samples).try_acquire_many_owned(places).map_err(|_| {
            ApiError::busy(
                "others read long histories: wait for them, or ask for pages with limit".to_owned(),
            )
        })
    }

    /// Does `work` on another thread, once that of clients before is done. It is done to its end
    /// though its client leaves, and others wait until then.
    ///
    /// # Errors
    /// It panicked.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = Arc::clone(&self.work).acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        done.await.map_err(|e| ApiError::internal(format!("the answer cannot be computed: {e}")))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let client = parts.extensions.get::<Self>().cloned();
        client.ok_or_else(|| ApiError::internal("the server does not know whose request it is".to_owned()))
    }
}

/// It is no part of what a client sends.
impl Part for Client {
    fn describe(_: &mut Taken<'_>) {}
}
