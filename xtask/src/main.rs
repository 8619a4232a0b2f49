//! `cargo xtask`: the entry points of developers and newcomers.
//!
//! `lab` boots a virtual host and runs commands in it, `image` builds a Debian disk, `test` runs
//! every test, `campaign` attacks, `demo` shows the whole, `bench` measures, `paper` shows our
//! figures beside the paper's, `package` makes the Debian package, `book` writes the book's
//! reference. Each verb is a crate or part of one; here is the command line only, and no part of
//! Plimsoll itself.
//!
//! [`preflight`] runs first: it looks for what a command needs, and then builds and runs this
//! program, or for `demo` the smaller one in `xtask/demo`. Start reading at [`Task`].

mod task;

use std::process::ExitCode;

use clap::Parser;

use crate::task::Task;

fn main() -> ExitCode {
    plimsoll_lab::main(|| Task::parse().run())
}
