//! The program `plimsolld`; see the library of this package.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match plimsoll_host::run(&plimsoll_host::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            #[expect(clippy::print_stderr, reason = "the log may not be there yet")]
            {
                eprintln!("plimsolld: {e:#}");
            }
            ExitCode::FAILURE
        }
    }
}
