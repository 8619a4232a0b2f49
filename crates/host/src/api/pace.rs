//! How fast a peer may make changes (VMs that are started and stopped, settings, pools), and agree
//! on encryption.
//!
//! Each change divides the host's memory anew and is written to disk; each agreement is a
//! signature. Peers that ask for more than their rate wait; those that would wait for too long are
//! refused, by the name of the peer, so that one that loops costs others nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::Request;
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, sleep_until};

use super::answer::ApiError;
use super::gate::Peer;

/// Changes a second, in the long run. A change takes the loop's thread some milliseconds on a host
/// of a hundred VMs: more would leave it no time for VMs; less would make a script that starts
/// hundreds of VMs wait.
const RATE: u32 = 100;
/// Changes at once after a pause: what a script does in one go.
const BURST: u32 = 200;
/// Agreements on encryption a second, in the long run. A peer needs no token for one, and it takes
/// the loop's thread about a millisecond (RSA): more would leave less time for VMs; less would make
/// a client wait that connects anew for each request.
const HANDSHAKES: u32 = 20;
/// Agreements at once after a pause: a browser and some scripts.
const HANDSHAKES_AT_ONCE: u32 = 40;
/// Longest wait for a turn. With a longer wait, clients would believe that the daemon hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most peers that are remembered. A peer that has paused for long enough is forgotten.
const MOST_PEERS: usize = 1024;

/// The sender of a request and the pace for all senders. The server adds it to each request.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) peer: Peer,
    pub(super) pace: Arc<Pace>,
}

/// When each peer has its next turns.
#[derive(Debug)]
pub(super) struct Pace {
    each: Duration,
    burst: Duration,
    peers: Mutex<HashMap<Peer, Instant>>,
}

impl Pace {
    /// The pace of changes.
    pub(super) fn of_changes() -> Self {
        Self::new(RATE, BURST)
    }

    /// The pace of agreements on encryption.
    pub(super) fn of_handshakes() -> Self {
        Self::new(HANDSHAKES, HANDSHAKES_AT_ONCE)
    }

    fn new(rate: u32, burst: u32) -> Self {
        let each = Duration::from_secs(1) / rate;
        Self { each, burst: each * burst, peers: Mutex::default() }
    }

    /// The turn of `peer`, which asks at `now`. `None`: it is not soon enough.
    pub(super) fn turn(&self, peer: Peer, now: Instant) -> Option<Instant> {
        let (each, burst) = (self.each, self.burst);
        let mut peers = plimsoll_sys::lock(&self.peers);
        if peers.len() >= MOST_PEERS {
            peers.retain(|_, spent| *spent + burst > now);
        }
        // What it has used of the burst is a time in the future; a long pause leaves none.
        let spent = peers.get(&peer).map_or(now, |spent| (*spent).max(now)) + each;
        let turn = spent.checked_sub(burst).map_or(now, |turn| turn.max(now));
        if turn > now + PATIENCE {
            return None;
        }
        peers.insert(peer, spent);
        Some(turn)
    }
}

/// Lets requests that change something through at their pace.
pub(super) async fn keep(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let client = request.extensions().get::<Client>().cloned();
    match client.map(|client| client.pace.turn(client.peer, Instant::now())) {
        Some(None) => {
            let text = format!(
                "too many changes from this client: {RATE} a second are carried out; wait, and try again"
            );
            ApiError::too_often(text).into_response()
        }
        turn => {
            if let Some(Some(turn)) = turn {
                sleep_until(turn).await;
            }
            next.run(request).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_loops_waits_and_is_refused_and_others_are_not() {
        let (pace, begin) = (Pace::of_changes(), Instant::now());
        let turn = || pace.turn(Peer::User(1), begin);
        for _ in 0..BURST {
            assert_eq!(turn(), Some(begin), "a burst waits for nothing");
        }
        let waited: Vec<Instant> = std::iter::from_fn(turn).take(10_000).collect();
        assert_eq!(waited.len(), RATE as usize * 5);
        assert_eq!(waited[99], begin + Duration::from_secs(1));
        assert_eq!(pace.turn(Peer::User(2), begin), Some(begin));
        let later = begin + Duration::from_secs(60);
        assert_eq!(pace.turn(Peer::User(1), later), Some(later));
    }

    #[test]
    fn a_peer_agrees_on_encryption_so_often_and_no_more() {
        let (pace, begin) = (Pace::of_handshakes(), Instant::now());
        let turns = std::iter::from_fn(|| pace.turn(Peer::User(1), begin)).take(10_000).count();
        assert_eq!(turns, 40 + 20 * 5);
        assert_eq!(pace.turn(Peer::User(2), begin), Some(begin));
    }

    #[test]
    fn peers_that_pause_are_forgotten() {
        let (pace, begin) = (Pace::of_changes(), Instant::now());
        for peer in 0..5000 {
            let at = begin + Duration::from_secs(u64::from(peer));
            assert_eq!(pace.turn(Peer::User(peer), at), Some(at));
        }
        assert!(pace.peers.lock().unwrap().len() <= MOST_PEERS);
    }
}
