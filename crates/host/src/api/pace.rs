//! How fast a peer may make changes (VMs that are started and stopped, settings, pools), ask costly
//! questions, and make TLS handshakes.
//!
//! Each change divides the host's memory anew and is written to disk; some questions divide it,
//! too; each handshake is a signature. Peers that ask for more than their rate wait; those that
//! would wait for too long are refused, by the name of the peer, so that one that loops costs
//! others nothing. An attacker may be many peers, so all of them together have a rate as well.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use axum::extract::Request;
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, sleep_until};

use super::answer::ApiError;
use super::client::Client;
use super::gate::Peer;

/// Changes of a peer. A change takes the loop's thread some milliseconds on a host of a hundred
/// VMs: more would leave it no time for VMs; less would make a script that starts hundreds of VMs
/// wait.
const CHANGES: Rate = Rate::new(100, 200);
/// Costs of a peer's questions, as [`super::openapi::Operation::costs`] counts them. An explanation
/// costs ten: a script that explains a hundred VMs does not wait, and one that loops gets fifty a
/// second. More would leave the loop's thread no time for VMs; less would make pages wait.
const QUESTIONS: Rate = Rate::new(500, 1000);
/// The same of all peers of a listener: each address is one on TCP.
const QUESTIONS_OF_ALL: Rate = Rate::new(1000, 2000);
/// TLS handshakes of a peer. A peer needs no token for one, and it takes the loop's thread about a
/// millisecond (RSA): more would leave less time for VMs; less would make a client wait that
/// connects anew for each request. At once: a browser and some scripts.
const HANDSHAKES: Rate = Rate::new(20, 40);
/// The same of all peers: a tenth of the thread's time. More, and an attacker with many addresses
/// slows VMs; less, and it keeps others out more easily.
const HANDSHAKES_OF_ALL: Rate = Rate::new(100, 200);
/// Longest wait for a turn. With a longer wait, clients would believe that the daemon hangs.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Most peers that are remembered. A peer that has paused for long enough is forgotten.
const MOST_PEERS: usize = 1024;

/// How often something may happen.
#[derive(Clone, Copy, Debug)]
struct Rate {
    /// Times a second, in the long run.
    a_second: u32,
    /// Times at once after a pause.
    at_once: u32,
}

impl Rate {
    const fn new(a_second: u32, at_once: u32) -> Self {
        Self { a_second, at_once }
    }

    fn time_for(self, times: u32) -> Duration {
        Duration::from_secs(1) * times / self.a_second
    }

    /// What is spent when it happens `times` more at `now`, after `spent`; and when its turn is.
    /// What is used of the times at once is a moment in the future; a long pause leaves none.
    fn turn(self, spent: Option<Instant>, times: u32, now: Instant) -> (Instant, Instant) {
        let spent = spent.map_or(now, |spent| spent.max(now)) + self.time_for(times);
        let turn = spent.checked_sub(self.time_for(self.at_once)).map_or(now, |turn| turn.max(now));
        (spent, turn)
    }
}

/// When each peer has its next turns.
#[derive(Debug)]
pub(super) struct Pace {
    of_one: Rate,
    of_all: Option<Rate>,
    spent: Mutex<Spent>,
}

/// See [`Rate::turn`].
#[derive(Debug, Default)]
struct Spent {
    peers: HashMap<Peer, Instant>,
    all: Option<Instant>,
}

impl Pace {
    /// The pace of changes.
    pub(super) fn of_changes() -> Self {
        Self::new(CHANGES, None)
    }

    /// The pace of costly questions.
    pub(super) fn of_questions() -> Self {
        Self::new(QUESTIONS, Some(QUESTIONS_OF_ALL))
    }

    /// The pace of TLS handshakes.
    pub(super) fn of_handshakes() -> Self {
        Self::new(HANDSHAKES, Some(HANDSHAKES_OF_ALL))
    }

    fn new(of_one: Rate, of_all: Option<Rate>) -> Self {
        Self { of_one, of_all, spent: Mutex::default() }
    }

    /// The turn of `peer`, which asks at `now`, and what it asks for counts `times`. `None`: it is
    /// not soon enough.
    pub(super) fn turn(&self, peer: Peer, times: u32, now: Instant) -> Option<Instant> {
        let mut spent = plimsoll_sys::lock(&self.spent);
        if spent.peers.len() >= MOST_PEERS {
            let at_once = self.of_one.time_for(self.of_one.at_once);
            spent.peers.retain(|_, spent| *spent + at_once > now);
        }
        let (of_peer, its_turn) = self.of_one.turn(spent.peers.get(&peer).copied(), times, now);
        let (of_all, turn) = match self.of_all.map(|rate| rate.turn(spent.all, times, now)) {
            Some((of_all, turn)) => (Some(of_all), turn.max(its_turn)),
            None => (None, its_turn),
        };
        if turn > now + LONGEST_WAIT {
            return None;
        }
        spent.peers.insert(peer, of_peer);
        spent.all = of_all;
        Some(turn)
    }
}

/// Lets requests that change something through at their pace.
pub(super) async fn keep(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let turn = |client: &Client, now| client.listener.changes.turn(client.peer, 1, now);
    let refusal = || {
        let rate = CHANGES.a_second;
        format!("too many changes from this client: {rate} a second are carried out; wait, and try again")
    };
    take(turn, refusal, request, next).await
}

/// Lets a costly question through at its pace.
pub(super) async fn ask(costs: u32, request: Request, next: Next) -> Response {
    let turn = |client: &Client, now| client.listener.questions.turn(client.peer, costs, now);
    let refusal = || "too many costly questions from this client, or in all: wait, and try again".to_owned();
    take(turn, refusal, request, next).await
}

/// Lets a request through at the turn that its client has now; `None`: that is not soon enough.
async fn take(
    turn: impl FnOnce(&Client, Instant) -> Option<Instant>,
    refusal: impl FnOnce() -> String,
    request: Request,
    next: Next,
) -> Response {
    let now = Instant::now();
    match request.extensions().get::<Client>().map_or(Some(now), |client| turn(client, now)) {
        None => ApiError::too_often(refusal()).into_response(),
        Some(turn) => {
            sleep_until(turn).await;
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
        let turn = || pace.turn(Peer::User(1), 1, begin);
        for _ in 0..CHANGES.at_once {
            assert_eq!(turn(), Some(begin), "a burst waits for nothing");
        }
        let waited: Vec<Instant> = std::iter::from_fn(turn).take(10_000).collect();
        assert_eq!(waited.len(), CHANGES.a_second as usize * 5);
        assert_eq!(waited[99], begin + Duration::from_secs(1));
        assert_eq!(pace.turn(Peer::User(2), 1, begin), Some(begin));
        let later = begin + Duration::from_secs(60);
        assert_eq!(pace.turn(Peer::User(1), 1, later), Some(later));
    }

    #[test]
    fn a_peer_agrees_on_encryption_so_often_and_no_more() {
        let (pace, begin) = (Pace::of_handshakes(), Instant::now());
        let turns = std::iter::from_fn(|| pace.turn(Peer::User(1), 1, begin)).take(10_000).count();
        assert_eq!(turns, 40 + 20 * 5);
        assert_eq!(pace.turn(Peer::User(2), 1, begin), Some(begin));
    }

    #[test]
    fn many_peers_agree_on_encryption_no_more_often_than_all_may() {
        let (pace, begin) = (Pace::of_handshakes(), Instant::now());
        let peers = (0..=u8::MAX).map(|n| Peer::at([10, 0, 0, n].into()));
        let turns = peers.flat_map(|peer| {
            let pace = &pace;
            std::iter::from_fn(move || pace.turn(peer, 1, begin)).take(1000)
        });
        let soon = turns.filter(|turn| *turn < begin + Duration::from_secs(1)).count();
        assert!(soon <= 200 + 100, "{soon}");
        let later = begin + Duration::from_secs(60);
        assert_eq!(pace.turn(Peer::User(1), 1, later), Some(later), "a pause lets others in again");
    }

    #[test]
    fn a_costly_question_counts_as_many() {
        let begin = Instant::now();
        let at_once = |costs| {
            let pace = Pace::of_questions();
            let turns = std::iter::from_fn(|| pace.turn(Peer::User(1), costs, begin));
            turns.take_while(|turn| *turn == begin).count()
        };
        assert_eq!((at_once(10), at_once(1)), (100, 1000));
    }

    #[test]
    fn peers_that_pause_are_forgotten() {
        let (pace, begin) = (Pace::of_changes(), Instant::now());
        for peer in 0..5000 {
            let at = begin + Duration::from_secs(u64::from(peer));
            assert_eq!(pace.turn(Peer::User(peer), 1, at), Some(at));
        }
        assert!(pace.spent.lock().unwrap().peers.len() <= MOST_PEERS);
    }
}
