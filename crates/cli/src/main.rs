//! The program `plimsoll`; see the library of this package.

use std::process::ExitCode;

fn main() -> ExitCode {
    plimsoll_cli::main()
}
