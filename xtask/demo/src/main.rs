//! The program that `cargo xtask demo` runs, outside the lab and in it: [`plimsoll_demo`] alone.
//!
//! `xtask` has the same verb, beside all others. A change to one command line is a change to both.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use plimsoll_demo::DemoArgs;
use plimsoll_lab::inside::agent;

/// Four guests that share less memory than they were promised.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110)]
struct Program {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Demo(DemoArgs),
    /// What runs inside the lab.
    #[command(hide = true, subcommand)]
    Inside(Inside),
}

#[derive(Debug, Subcommand)]
enum Inside {
    /// Run the commands that come over the virtio-serial port.
    Agent,
    /// Run the demo on this host.
    Demo(DemoArgs),
}

impl Program {
    fn run(self) -> Result<ExitCode> {
        match self.command {
            Verb::Demo(arguments) => plimsoll_demo::start(&arguments),
            Verb::Inside(Inside::Agent) => agent::main().map(|()| ExitCode::SUCCESS),
            Verb::Inside(Inside::Demo(arguments)) => plimsoll_demo::here(&arguments),
        }
    }
}

fn main() -> ExitCode {
    plimsoll_lab::main(|| Program::parse().run())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_manual_is_consistent() {
        Program::command().debug_assert();
    }

    #[test]
    fn what_the_lab_starts_is_understood() {
        for line in ["inside agent", "inside demo --waited=3.14 --json --keep", "demo --lab"] {
            Program::try_parse_from(["xtask"].into_iter().chain(line.split(' '))).unwrap();
        }
        assert!(Program::try_parse_from(["xtask", "test"]).is_err());
    }
}
