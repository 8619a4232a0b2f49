//! System tests, fuzzing, and `cargo xtask test`, which runs them after every other test.
//!
//! [`system`] has the scenarios, one a file. [`test`](mod@test) decides what runs where: steps of
//! cargo on this machine, scenarios with model guests on this machine, and all scenarios in labs. A
//! scenario runs in a process of its own, in the lab `xtask inside system NAME`.
//!
//! Nothing here repeats a check until it passes, and no check depends on how fast a machine is,
//! except for deadlines that only a hang can reach. Start reading at [`system::SCENARIOS`].

mod console;
pub mod fuzz;
mod guests;
mod io_uring;
pub mod system;
mod tap;
pub mod test;

pub use guests::Guests;
