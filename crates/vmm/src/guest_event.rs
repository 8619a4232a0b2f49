use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Something that ends or restarts the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GuestEvent {
    /// The guest switched the machine off.
    Off,
    /// The guest reset the machine.
    Reset,
    /// The operator pressed the reset button.
    ResetButton,
    /// The guest's kernel reported a panic.
    Panicked,
    /// The guest cannot go on: the symptom.
    Crashed(String),
    /// The VMM cannot go on.
    Failed(String),
}

/// Most events that wait for the machine thread. The first one ends or restarts the guest, so later
/// ones say nothing new. But a guest can write to its reset register again and again until it is
/// stopped.
const MAX_WAITING: usize = 8;

/// Sends guest events to the machine thread. Never blocks.
#[derive(Clone, Debug)]
pub(crate) struct Teller(SyncSender<GuestEvent>);

impl Teller {
    /// Sends `event`, unless the queue is full: then the guest is about to be stopped for the
    /// events in it.
    pub(crate) fn tell(&self, event: GuestEvent) {
        // Refused when the queue is full, or when its receiver is gone because the VM ends.
        self.0.try_send(event).ok();
    }
}

/// Makes a sender, and the receiver of its events.
pub(crate) fn channel() -> (Teller, Receiver<GuestEvent>) {
    let (send, receive) = sync_channel(MAX_WAITING);
    (Teller(send), receive)
}
