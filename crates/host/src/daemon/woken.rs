use crate::incoming::Incoming;

/// What a turn of the loop is about.
#[derive(Debug)]
pub(super) enum Woken {
    Incoming(Incoming),
    Tick,
    Settled,
    /// It is time to ask the kernel about VMs.
    Second,
    /// It is time to look at the processors.
    Glance,
    /// It is time to tell the service manager that the loop goes round.
    Alive,
}
