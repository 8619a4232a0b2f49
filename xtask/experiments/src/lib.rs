//! Experiments: what Plimsoll costs and gains, measured beside what it is compared with.
//!
//! [`bench`](mod@bench) has benchmarks, each against a baseline in the same run; [`paper`] the
//! figures of Waldspurger 2002, the paper's numbers beside ours. Both are command lines of `xtask`;
//! parts of them run in the lab, as `xtask inside bench` and `xtask inside paper`.
//!
//! Nothing here tests: figures judge time, and a missed goal is an exit status. No other crate uses
//! what is measured here. Start reading at [`bench::Bench`] or [`paper::PaperArgs`].

pub mod bench;
mod guests;
pub mod paper;
mod stats;
