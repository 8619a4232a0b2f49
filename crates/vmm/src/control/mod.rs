//! The control thread: the VMM's end of the conversation with the daemon.
//!
//! It waits in one place only ([`session::Session::run`]), for the daemon, for the VM's own threads
//! ([`Mailbox`](crate::mailbox::Mailbox)) and for the time of the next report. It touches no guest
//! memory that may be absent: it would wait for a grant that only it can receive.
//!
//! What is to be sent is kept as a state ([`outbox::Outbox`]), so a daemon that is slow or absent
//! costs no memory. A daemon that comes back gets all that it needs in the first message.

mod grants;
mod link;
mod outbox;
mod session;

pub(crate) use session::Session;
