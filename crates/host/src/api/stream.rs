//! Events as they happen, as server-sent events.
//!
//! A stream keeps the id of the event that it has sent last, and nothing else: when something has
//! happened and the client has read what it was sent, it asks the daemon for what is new. A client
//! that reads so slowly that events are forgotten meanwhile is dropped, and may come back with
//! `Last-Event-ID`; one that does not read at all ends as every other (see [`super::stalls`]). For
//! the gate the connection of a stream is idle: where there are too many, it ends for a new one.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use plimsoll_protocol::api::Event;
use tokio::sync::mpsc::{self, Sender};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::answer::ApiError;
use super::client::Listener;
use crate::core::{Answer, Request};
use crate::daemon::Caller;

/// Events that are on their way to a client beside what its socket holds.
const BUFFER: usize = 16;
/// Pause after which a comment tells both sides that the other one is there: proxies end
/// connections that are silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Where streams come from.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    /// The id of the last event that there was.
    news: watch::Receiver<u64>,
}

impl Streams {
    pub(super) fn new(news: watch::Receiver<u64>) -> Self {
        Self { news }
    }

    /// A stream of what came after the event `after`, and of what comes, for a client of
    /// `listener`.
    ///
    /// # Errors
    /// Too many clients of the listener have one.
    pub(super) fn open(&self, listener: &Listener, caller: Caller, after: u64) -> Result<Response, ApiError> {
        let place = listener.stream()?;
        let (sender, events) = mpsc::channel(BUFFER);
        tokio::spawn(follow(caller, self.news.clone(), after, sender, place));
        let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
        Ok(Sse::new(ReceiverStream::new(events)).keep_alive(keep_alive).into_response())
    }
}

/// Sends events until the client is gone, or too slow, or the daemon ends.
async fn follow(
    caller: Caller,
    mut news: watch::Receiver<u64>,
    mut after: u64,
    client: Sender<Result<sse::Event, Infallible>>,
    _place: OwnedSemaphorePermit,
) {
    let mut first = true;
    loop {
        news.borrow_and_update();
        let Ok(Answer::Events(events)) = caller.call(Request::Events(after)).await else { return };
        let missed = events.first().is_some_and(|event| event.id > after.saturating_add(1));
        if missed && !std::mem::take(&mut first) {
            return;
        }
        first = false;
        for event in events {
            after = event.id;
            if client.send(Ok(written(&event))).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = news.changed() => if changed.is_err() { return },
            () = client.closed() => return,
        }
    }
}

fn written(event: &Event) -> sse::Event {
    let data = serde_json::to_string(event).unwrap_or_default();
    sse::Event::default().id(event.id.to_string()).data(data)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::BodyDataStream;
    use jiff::Timestamp;
    use tokio::time::{Instant, timeout};
    use tokio_stream::StreamExt;

    use super::*;
    use crate::api::client::MOST_STREAMS;
    use crate::events::Events;
    use crate::incoming::Incoming;

    /// A daemon that knows events only, and a way to have something happen.
    struct Daemon {
        caller: Caller,
        streams: Streams,
        listener: Arc<Listener>,
        happen: mpsc::UnboundedSender<()>,
    }

    fn daemon() -> Daemon {
        let (sender, mut inbox) = mpsc::channel(16);
        let (told, news) = watch::channel(0);
        let (happen, mut happens) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut events = Events::default();
            loop {
                tokio::select! {
                    Some(()) = happens.recv() => {
                        let id = events.add(Timestamp::UNIX_EPOCH, None, "it happens".to_owned()).id;
                        told.send_replace(id);
                    }
                    Some(Incoming::Call(request, answer)) = inbox.recv() => {
                        let Request::Events(after) = *request else { continue };
                        answer.send(Ok(Answer::Events(events.after(after)))).ok();
                    }
                    else => return,
                }
            }
        });
        Daemon { caller: Caller::to(sender), streams: Streams::new(news), listener: Listener::new(), happen }
    }

    impl Daemon {
        fn open(&self, after: u64) -> Result<BodyDataStream, ApiError> {
            Ok(self.streams.open(&self.listener, self.caller.clone(), after)?.into_body().into_data_stream())
        }

        fn happen(&self, times: usize) {
            (0..times).for_each(|_| self.happen.send(()).unwrap());
        }
    }

    /// The ids of the next `count` events.
    async fn ids(stream: &mut BodyDataStream, count: usize) -> Vec<u64> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let part = timeout(Duration::from_secs(60), stream.next()).await.unwrap().unwrap().unwrap();
            let text = String::from_utf8(part.to_vec()).unwrap();
            ids.extend(text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse::<u64>().ok()));
        }
        ids
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_goes_on_where_the_last_one_ended() {
        let daemon = daemon();
        daemon.happen(3);
        let mut stream = daemon.open(0).unwrap();
        assert_eq!(ids(&mut stream, 3).await, [1, 2, 3]);
        daemon.happen(2);
        assert_eq!(ids(&mut stream, 2).await, [4, 5]);
        drop(stream);
        assert_eq!(ids(&mut daemon.open(3).unwrap(), 2).await, [4, 5]);
        // No event has had that id: the client comes from another record.
        assert_eq!(ids(&mut daemon.open(u64::MAX).unwrap(), 5).await, [1, 2, 3, 4, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_tells_that_it_is_there() {
        let daemon = daemon();
        let mut stream = daemon.open(0).unwrap();
        let begin = Instant::now();
        let part = stream.next().await.unwrap().unwrap();
        assert!(part.starts_with(b":") && begin.elapsed() == KEEP_ALIVE, "{part:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_dropped_and_takes_no_memory() {
        let daemon = daemon();
        let mut stream = daemon.open(0).unwrap();
        daemon.happen(1);
        assert_eq!(ids(&mut stream, 1).await, [1]);
        // More than the daemon remembers; the client reads nothing of it meanwhile.
        for _ in 0..3 * crate::events::MOST {
            daemon.happen(1);
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut read = 0;
        let all = async {
            while let Some(part) = stream.next().await {
                read += part.unwrap().iter().filter(|byte| **byte == b'\n').count();
            }
        };
        timeout(Duration::from_secs(600), all).await.expect("it ends");
        assert!(read < 3 * crate::events::MOST, "{read} lines");
    }

    #[tokio::test(start_paused = true)]
    async fn streams_are_so_many_and_a_client_that_leaves_makes_room() {
        let daemon = daemon();
        let mut streams: Vec<BodyDataStream> = (0..MOST_STREAMS).map(|_| daemon.open(0).unwrap()).collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(daemon.open(0).is_err());
        let of_another_listener = daemon.streams.open(&Listener::new(), daemon.caller.clone(), 0);
        assert!(of_another_listener.is_ok(), "one listener's clients take nothing from another's");
        streams.pop();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(daemon.open(0).is_ok());
    }
}
