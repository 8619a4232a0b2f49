//! Page sharing's data plane: sharing domains, their memory and their index.
//!
//! A [`Plane`] runs on a thread of its own ([`thread`]). The core sends it [`Order`]s and gets one
//! [`Report`] for each, both in order. The plane makes memfds, copies, digests and writes pages,
//! and gives memory back to the host. It decides nothing: the core says which VM shares with which
//! ones, how much of the plane's time each VM may take (`core/tokens.rs`), and keeps the ledger.
//!
//! # What may cross
//!
//! The core handles inputs while orders are under way. What it knows of domains
//! (`core/mirror.rs`) is as old as the last report.
//!
//! | between an order and its report | so |
//! |---|---|
//! | The VMM sends more messages. | Those about frames become orders, in the order in which they came. The others (`Want`, `Return`, `Report`) do not depend on the answer. An honest VMM asks its next question when it has read the answer to the last. |
//! | The VMM returns pages that it has offered. | Offered pages stay in its grant and are *pledged* in the ledger: they cannot be returned, and become frames or are free to use with the report. |
//! | The VM ends. | Its account closes. What it has pledged counts as frames until the report says how many there are. Reports about the VM itself are dropped. |
//! | The VM is moved to another domain. | The plane carries out the questions that came before, and answers later ones about the old domain with nothing: it checks membership itself. |
//! | A page of another VM becomes shared, and that VM moves. | The core gives the reference back for it, as for any VMM that does not hear of a page. |
//! | References or frames change. | The plane checks bounds on references itself, when it carries out a look-up or an offer. |
//!
//! The ledger counts frames from the report on. Frames that were made are pledged until then, and
//! frames that were freed still count: so the ledger never promises memory that a frame takes.
//! Frames of an earlier daemon ([`Order::Recover`]) are not in the ledger before their report, and
//! taking them over takes a microsecond or two each. So the core gives out no memory and looks at
//! no excess of their VMs while one is taken over. A VM that is not reached yet counts with what
//! the kernel shows of its process, but its frames only when they are reported: until then the
//! host may give out memory that they take.
//!
//! # Recovery
//!
//! A domain of an earlier daemon makes and frees no frames before each VM that may map them has
//! reported or is gone. [`Order::Discovered`] names these VMs. The core sends it for all of them
//! before any other order, and [`Order::Answered`] or [`Order::Ended`] for each, behind the
//! [`Order::Recover`] with its frames.

mod order;
mod part;
mod plane;
mod recovery;
mod registry;
mod report;
mod thread;
mod tidy;
mod unreported;

pub(crate) use order::{HeldReferences, Order, Question};
pub(crate) use part::Part;
pub(crate) use plane::Plane;
pub(crate) use registry::{Known, Owner};
pub(crate) use report::{DomainState, Joined, NotRecovered, Outcome, Report, Shared};
pub(crate) use thread::Worker;
