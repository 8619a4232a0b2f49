//! The program `plimsolld`; see the library of this package.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match plimsoll_host::run(&plimsoll_host::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // The log may not be there yet.
            plimsoll_log::say(&format!("plimsolld: {e:#}"));
            ExitCode::FAILURE
        }
    }
}
