use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Something that ends or restarts the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GuestEvent {
    /// It switched the machine off.
    Off,
    /// It reset the machine.
    Reset,
    /// It reported that its kernel panicked.
    Panicked,
    /// It cannot go on: how that showed.
    Crashed(String),
    /// We cannot go on.
    Failed(String),
}

/// Events that wait to be judged at most. The first one ends or restarts the guest, so what comes
/// after it says nothing new; but a guest can write to its reset register without end until it is
/// stopped.
const MAX_WAITING: usize = 8;

/// Tells events to who judges them. Never blocks.
#[derive(Clone, Debug)]
pub(crate) struct Teller(SyncSender<GuestEvent>);

impl Teller {
    /// Tells `event`, unless as many wait as may: then the guest is about to be stopped for those.
    pub(crate) fn tell(&self, event: GuestEvent) {
        // Refused where enough events wait, or where nobody listens any more because the VM ends.
        self.0.try_send(event).ok();
    }
}

/// A teller, and where its events arrive.
pub(crate) fn channel() -> (Teller, Receiver<GuestEvent>) {
    let (send, receive) = sync_channel(MAX_WAITING);
    (Teller(send), receive)
}
