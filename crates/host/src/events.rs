//! The latest events, for operators.

use std::collections::VecDeque;

use plimsoll_protocol::api::Event;

/// Most events that are remembered: some screens full. More would cost memory for what the log has
/// anyway.
const MOST: usize = 512;

/// The latest events, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Events(VecDeque<Event>);

impl Events {
    /// Remembers an event, and forgets the oldest where there are too many.
    pub(crate) fn push(&mut self, event: Event) {
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(event);
    }

    /// All of them, oldest first.
    pub(crate) fn all(&self) -> Vec<Event> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_that_makes_noise_cannot_fill_memory() {
        let mut events = Events::default();
        for i in 0..2 * MOST {
            events.push(Event { at: jiff::Timestamp::UNIX_EPOCH, vm: None, text: i.to_string() });
        }
        let all = events.all();
        assert_eq!((all.len(), all[0].text.as_str()), (MOST, "512"));
    }
}
