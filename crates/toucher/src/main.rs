//! `toucher` runs inside demo and test guests: it writes patterns to memory, and later verifies
//! every byte of them.
//!
//! It is driven over the guest's serial console: it reads one command a line and answers each with
//! one line that starts with `toucher:`, so that a driver outside can tell its answers from the
//! kernel's messages. It never decides anything itself. Start reading at [`command::Command`] for
//! the language, [`region::Regions`] for the patterns.

mod attack;
mod command;
mod disk;
mod echo;
mod hog;
mod libc_devmem;
mod libc_memory;
mod libc_power;
mod pattern;
mod region;
mod shell;
mod state;
mod virtio;
mod worker;

use std::io::{self, BufRead, Write};

use command::Command;
use state::State;

fn main() {
    // The hog must die before the program that reports on it.
    std::fs::write("/proc/self/oom_score_adj", "-1000").ok(); // Outside a guest this may be refused; nothing depends on it.
    say("ready");
    let mut state = State::default();
    for line in io::stdin().lock().lines() {
        match line {
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) => answer(&mut state, line.trim()),
            Err(error) => {
                say(&format!("error console {error}"));
                return;
            }
        }
    }
}

/// Runs one command line and prints its answer.
fn answer(state: &mut State, line: &str) {
    let result = line.parse::<Command>().and_then(|command| command.run(state, &say));
    match result {
        Ok(facts) => say(&format!("ok {facts}")),
        Err(error) => say(&format!("error {error}")),
    }
}

/// Prints one answer. It is preceded by a line break, because the kernel may have left the cursor
/// in mid-line.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    // If the console is gone, the error cannot be reported.
    writeln!(out, "\ntoucher: {text}").and_then(|()| out.flush()).ok();
}
