//! The latest events, for operators.

use std::collections::VecDeque;

use jiff::Timestamp;
use plimsoll_protocol::VmName;
use plimsoll_protocol::api::Event;

/// Most events that are remembered: some screens full. More would cost memory for what the log has
/// anyway.
pub(crate) const MOST: usize = 512;

/// The latest events, oldest first. Their ids rise by one, also across restarts of the daemon.
#[derive(Debug, Default)]
pub(crate) struct Events {
    latest: VecDeque<Event>,
    /// The id of the last event that there was.
    last: u64,
}

impl Events {
    /// The events of an earlier daemon, oldest first: new ones follow them.
    pub(crate) fn of(events: impl IntoIterator<Item = Event>) -> Self {
        let mut all = Self::default();
        events.into_iter().for_each(|event| all.push(event));
        all
    }

    /// Remembers that something happened, and forgets the oldest event where there are too many.
    pub(crate) fn add(&mut self, at: Timestamp, vm: Option<VmName>, text: String) -> &Event {
        self.push(Event { id: self.last + 1, at, vm, text });
        &self.latest[self.latest.len() - 1]
    }

    fn push(&mut self, event: Event) {
        self.last = event.id;
        if self.latest.len() == MOST {
            self.latest.pop_front();
        }
        self.latest.push_back(event);
    }

    /// The events with ids above `after`, oldest first. Where no event has had that id yet the
    /// record of earlier events was lost, and all events are new.
    pub(crate) fn after(&self, after: u64) -> Vec<Event> {
        let after = if after > self.last { 0 } else { after };
        self.latest.iter().filter(|event| event.id > after).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.id).collect()
    }

    #[test]
    fn a_vm_that_makes_noise_cannot_fill_memory() {
        let mut events = Events::default();
        for i in 0..2 * MOST {
            events.add(Timestamp::UNIX_EPOCH, None, i.to_string());
        }
        let all = events.after(0);
        assert_eq!((all.len(), all[0].text.as_str()), (MOST, "512"));
    }

    #[test]
    fn ids_rise_across_restarts_and_tell_what_is_new() {
        let mut events = Events::default();
        for _ in 0..3 {
            events.add(Timestamp::UNIX_EPOCH, None, String::new());
        }
        let mut events = Events::of(events.after(0));
        assert_eq!(events.add(Timestamp::UNIX_EPOCH, None, String::new()).id, 4);
        assert_eq!(ids(&events.after(2)), [3, 4]);
        assert!(events.after(4).is_empty());
        assert_eq!(ids(&events.after(5)), [1, 2, 3, 4], "the client knows events that were lost");
    }
}
