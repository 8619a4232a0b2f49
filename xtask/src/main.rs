//! `cargo xtask`: the entry points of developers and newcomers.
//!
//! `lab` boots a virtual host and runs commands in it, `image` builds a Debian disk, `test` runs
//! every test, `demo` shows the whole, `bench` measures, `paper` shows our figures beside the
//! paper's. It contains no part of Plimsoll itself and drives the programs as an operator would.
//!
//! [`preflight`] runs first: it looks for what a command needs, and then builds and runs this
//! program. Start reading at [`Task`].

mod age;
mod bench;
mod cpio;
mod demo;
mod disk;
mod guest;
mod kernel;
mod lab;
mod operate;
mod paper;
mod prctl;
mod system;
mod task;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use crate::task::Task;

#[expect(clippy::print_stderr, reason = "errors are for the person at the terminal")]
fn main() -> ExitCode {
    // In the lab this program is the first process.
    let result = if std::process::id() == 1 {
        lab::init::main().map(|()| ExitCode::FAILURE)
    } else {
        Task::parse().run()
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
