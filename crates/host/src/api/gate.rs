//! The connections of a listener, and which one ends for a new one.
//!
//! A connection without a request in work is idle: its client has sent nothing yet, or part of a
//! request, or does not read the answer. At the bound, the connection that has been idle for
//! longest ends. So a flood of connections ends itself, and a client that sends its request at once
//! is answered.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::descriptors::Counted;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Peer {
    /// A user of this machine.
    User(u32),
    /// An address of IPv4, or a network of IPv6: hosts there choose among 2^64 addresses.
    Address(IpAddr),
}

impl Peer {
    /// The peer at `address`.
    pub(super) fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
            v4 => v4,
        })
    }
}

/// The connections of one listener.
#[derive(Debug)]
pub(crate) struct Gate {
    most: usize,
    most_of_one: usize,
    state: Mutex<State>,
    /// A connection has ended or become idle.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    open: HashMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    peer: Peer,
    /// `None`: it answers a request.
    idle: Option<Instant>,
    end: Arc<Notify>,
}

impl Gate {
    /// Lets through `most` connections at a time, `most_of_one` for each peer.
    pub(crate) fn new(most: usize, most_of_one: usize) -> Arc<Self> {
        let state = Mutex::new(State::default());
        Arc::new(Self { most, most_of_one, state, changed: Notify::new() })
    }

    /// Waits until a new connection has a place, or another one would make place for it.
    pub(super) async fn opens(&self) {
        loop {
            let changed = self.changed.notified();
            {
                let state = self.lock();
                if state.open.len() < self.most || state.open.values().any(|c| c.idle.is_some()) {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Lets a connection of `peer` through, and ends another one where there are too many. `None`:
    /// all that the peer may have are busy.
    pub(super) fn enter(self: &Arc<Self>, peer: Peer) -> Option<Passage> {
        let mut state = self.lock();
        let of_peer = state.open.values().filter(|c| c.peer == peer).count();
        if of_peer >= self.most_of_one {
            state.end_idlest(|c| c.peer == peer)?;
        } else if state.open.len() >= self.most {
            state.end_idlest(|_| true)?;
        }
        state.last += 1;
        let (id, end) = (state.last, Arc::new(Notify::new()));
        state.open.insert(id, Connection { peer, idle: Some(Instant::now()), end: Arc::clone(&end) });
        drop(state);
        Some(Passage { gate: Arc::clone(self), id, end, _counted: Counted::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics between two changes that belong together.
        plimsoll_sys::lock(&self.state)
    }
}

impl State {
    /// Ends the connection that has been idle for longest, of those that `may` end.
    fn end_idlest(&mut self, may: impl Fn(&Connection) -> bool) -> Option<()> {
        let idle = self.open.iter().filter(|(_, c)| may(c)).filter_map(|(id, c)| Some((c.idle?, *id)));
        let (_, id) = idle.min()?;
        self.open.remove(&id)?.end.notify_one();
        Some(())
    }
}

/// A connection's place. Dropping it frees the place.
#[derive(Debug)]
pub(super) struct Passage {
    gate: Arc<Gate>,
    id: u64,
    end: Arc<Notify>,
    _counted: Counted,
}

impl Passage {
    /// Waits until the connection has to end for another one.
    pub(super) async fn ends(&self) {
        self.end.notified().await;
    }

    /// The connection answers a request until what is returned is dropped.
    pub(super) fn answer(self: &Arc<Self>) -> Answering {
        self.idle(None);
        Answering(Arc::clone(self))
    }

    fn idle(&self, idle: Option<Instant>) {
        if let Some(connection) = self.gate.lock().open.get_mut(&self.id) {
            connection.idle = idle;
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.gate.lock().open.remove(&self.id);
        self.gate.changed.notify_one();
    }
}

/// See [`Passage::answer`].
#[derive(Debug)]
pub(super) struct Answering(Arc<Passage>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.idle(Some(Instant::now()));
        self.0.gate.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(gate: &Gate) -> usize {
        gate.lock().open.len()
    }

    #[test]
    fn the_idlest_ends_and_the_busy_stays() {
        let gate = Gate::new(3, 3);
        let enter = || gate.enter(Peer::User(1)).map(Arc::new);
        let (first, second, third) = (enter().unwrap(), enter().unwrap(), enter().unwrap());
        let answering = first.answer();
        let fourth = enter().unwrap();
        assert_eq!(open(&gate), 3);
        // The second ended: its place is the fourth's, and its end frees no other.
        drop(second);
        assert_eq!(open(&gate), 3);
        let busy = [third.answer(), fourth.answer()];
        assert!(enter().is_none(), "all are busy");
        drop(answering);
        assert!(enter().is_some());
        drop((first, third, fourth, busy));
        assert_eq!(open(&gate), 0);
    }

    #[test]
    fn a_peer_pays_for_itself() {
        let gate = Gate::new(4, 2);
        let loud = Peer::at("10.0.0.1".parse().unwrap());
        let quiet = gate.enter(Peer::at("10.0.0.2".parse().unwrap())).unwrap();
        let flood: Vec<Passage> = (0..100).filter_map(|_| gate.enter(loud)).collect();
        assert_eq!(open(&gate), 3, "the quiet one's place is its own");
        drop((flood, quiet));
    }

    #[test]
    fn hosts_of_a_network_are_one_peer() {
        let peer = |address: &str| Peer::at(address.parse().unwrap());
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:1"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_gate_opens_when_a_connection_is_idle() {
        let gate = Gate::new(1, 1);
        let only = Arc::new(gate.enter(Peer::User(0)).unwrap());
        let answering = only.answer();
        let waits = tokio::time::timeout(std::time::Duration::from_secs(1), gate.opens());
        assert!(waits.await.is_err());
        drop(answering);
        gate.opens().await;
        let second = gate.enter(Peer::User(0)).unwrap();
        only.ends().await;
        drop((only, second));
    }
}
