//! One attempt at something in a lab, and another one after a fault of the emulator.

use anyhow::{Error, Result};

use crate::emulator;
use crate::failure::Failure;
use crate::workspace::note;

/// An attempt that did not pass.
#[derive(Debug)]
pub struct Failed {
    /// What is reported of it.
    pub error: Error,
    /// Everything that the lab's kernel wrote to its console.
    pub console: String,
    /// What the program in the lab said, consoles of guests among it.
    pub said: String,
}

impl From<Error> for Failed {
    /// An attempt that ended without a lab, or whose error holds what was said.
    fn from(error: Error) -> Self {
        let console = error.downcast_ref::<Failure>().map_or("", Failure::console).to_owned();
        Self { console, said: format!("{error:#}"), error }
    }
}

/// Returns the result of `attempt` at `name`. After a fault of the emulator that `excuses`, which
/// gets its signature, returns that of another attempt. Nothing else is tried again.
///
/// # Errors
/// That of the last attempt.
pub fn judged<T>(
    name: &str,
    attempt: &mut dyn FnMut() -> Result<T, Failed>,
    excuses: &mut dyn FnMut(&str) -> bool,
) -> Result<T> {
    loop {
        let failed = match attempt() {
            Ok(done) => return Ok(done),
            Err(failed) => failed,
        };
        let Some(signature) = emulator::signature(&failed.console, &failed.said) else {
            return Err(failed.error);
        };
        if !excuses(&signature) {
            let what = format!("a fault of the emulator, not the first in this run ({signature})");
            return Err(failed.error.context(what));
        }
        note(&format!(
            "{name}: runs again, this once: QEMU's emulation has failed, and not Plimsoll ({signature}): {:#}\n\
             the lab's whole console:\n{}",
            failed.error, failed.console
        ));
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    const EMULATORS: &str = "[   95.1] RSP: 0018:ff8179758000f648 EFLAGS: 0148b64e";
    const OOPS: &str = "[    3.2] Oops: 0000 [#1] PREEMPT SMP NOPTI";
    const OURS: &str = "what failed: guest4's turn: 16 pages are lost";

    /// The result of attempts whose consoles and words are these, `None` being one that passes, and
    /// how many there were. One fault is excused.
    fn judge(attempts: &[Option<(&str, &str)>]) -> (Result<()>, usize) {
        judge_after(false, attempts)
    }

    /// The same, in a run that has `excused` a fault already.
    fn judge_after(mut excused: bool, attempts: &[Option<(&str, &str)>]) -> (Result<()>, usize) {
        let mut made = 0;
        let mut attempt = || {
            made += 1;
            let Some((console, said)) = attempts[made - 1] else { return Ok(()) };
            Err(Failed { error: anyhow!("failed"), console: console.to_owned(), said: said.to_owned() })
        };
        let result = judged("demo", &mut attempt, &mut |_| !std::mem::replace(&mut excused, true));
        (result, made)
    }

    #[test]
    fn a_fault_of_the_emulator_is_excused_once_and_nothing_else_is() {
        let (emulators, oops, ours) = (Some(("", EMULATORS)), Some((OOPS, "")), Some(("", OURS)));
        assert!(matches!(judge(&[None]), (Ok(()), 1)));
        assert!(matches!(judge(&[ours]), (Err(_), 1)));
        for fault in [emulators, oops] {
            assert!(matches!(judge(&[fault, None]), (Ok(()), 2)));
            assert!(matches!(judge(&[fault, ours]), (Err(_), 2)));
            for (excused, attempts) in [(false, &[fault, emulators][..]), (true, &[fault])] {
                let (result, made) = judge_after(excused, attempts);
                let error = format!("{:#}", result.unwrap_err());
                assert!(error.contains("not the first in this run"), "{error}");
                assert_eq!(made, attempts.len());
            }
        }
    }

    #[test]
    fn an_error_without_a_console_is_all_that_was_said() {
        let failed = Failed::from(anyhow!("{EMULATORS}").context("guest4"));
        assert!(failed.console.is_empty() && failed.said.contains(EMULATORS));
    }
}
