//! The demo in the lab, and what a fault of the emulator does to it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use plimsoll_lab::wire::Request;
use plimsoll_lab::workspace::{self, note, step};
use plimsoll_lab::{Config, Failure, Lab, Switch, attach, emulator, show};

use crate::{DemoArgs, age};

/// How long the demo in the lab may take; two to four minutes are usual.
const LIMIT: Duration = Duration::from_secs(1200);

/// A run that did not pass.
#[derive(Debug)]
struct Failed {
    error: Error,
    /// Everything that the lab's kernel wrote to its console.
    console: String,
    /// Everything that the demo printed, consoles of guests among it.
    said: String,
}

/// Runs the demo in the lab, and once more where the emulator has failed.
pub(crate) fn run(arguments: &DemoArgs) -> Result<ExitCode> {
    let programs = workspace::build()?;
    let config =
        Config { kernel: arguments.host_kernel, npt: arguments.npt == Switch::On, ..Config::default() };
    let boot = || {
        Lab::boot(&config, &programs)
            .context("`cargo xtask demo --model` needs no lab: its guests are host threads")
    };
    let mut lab = judged(&mut || attempt(arguments, boot))?;
    if arguments.keep {
        note("The lab goes on. From another terminal:");
        note("    cargo xtask lab --attach -- plimsoll ps");
        note("    cargo xtask lab --attach -- plimsoll top --once");
        note("Ctrl-C here ends it.");
        attach::serve(&mut lab)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn attempt(arguments: &DemoArgs, boot: impl Fn() -> Result<Lab>) -> Result<Lab, Failed> {
    let before = |error: Error| {
        let console = error.downcast_ref::<Failure>().map_or("", Failure::console).to_owned();
        Failed { error, console, said: String::new() }
    };
    let mut lab = boot().map_err(before)?;
    let waited = age::of_this_process().map_err(before)?.as_secs_f64();
    let mut argv = ["/bin/xtask", "inside", "demo"].map(str::to_owned).to_vec();
    argv.push(format!("--waited={waited:.2}"));
    let options = [("--json", arguments.json), ("--keep", arguments.keep)];
    argv.extend(options.iter().filter(|option| option.1).map(|option| option.0.to_owned()));
    let mut said = Vec::new();
    let status = lab.run(&Request { argv, env: Vec::new() }, LIMIT, &mut |kind, bytes| {
        said.extend(bytes);
        show(kind, bytes)
    });
    let error = match status {
        Ok(0) => return Ok(lab),
        Ok(status) => anyhow!("the demo has failed: it ended with status {status}, and says why above"),
        Err(error) => error,
    };
    Err(Failed { error, console: lab.console(), said: String::from_utf8_lossy(&said).into_owned() })
}

/// The result of `attempt`, or of a second one after a fault of the emulator. Nothing else is tried
/// again.
fn judged<T>(attempt: &mut dyn FnMut() -> Result<T, Failed>) -> Result<T> {
    let failed = match attempt() {
        Ok(done) => return Ok(done),
        Err(failed) => failed,
    };
    let Some(signature) = emulator::signature(&failed.console, &failed.said) else {
        return Err(failed.error);
    };
    note(&format!("{:#}\nthe lab's whole console:\n{}", failed.error, failed.console));
    step(&format!(
        "QEMU's emulation has failed, and not Plimsoll ({signature}): the demo runs again, this once"
    ));
    attempt().map_err(|failed| failed.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMULATORS: &str = "[   95.1] RSP: 0018:ff8179758000f648 EFLAGS: 0148b64e";
    const OURS: &str = "what failed: guest4's turn: 16 pages are lost";

    /// The result of attempts that end so, `None` being one that passes, and how many there were.
    fn judge(attempts: &[Option<&str>]) -> (Result<()>, usize) {
        let mut made = 0;
        let result = judged(&mut || {
            made += 1;
            attempts[made - 1].map_or(Ok(()), |said| {
                Err(Failed { error: anyhow!("failed"), console: String::new(), said: said.to_owned() })
            })
        });
        (result, made)
    }

    #[test]
    fn a_fault_of_the_emulator_is_excused_once_and_nothing_else_is() {
        assert!(matches!(judge(&[None]), (Ok(()), 1)));
        assert!(matches!(judge(&[Some(OURS)]), (Err(_), 1)));
        assert!(matches!(judge(&[Some(EMULATORS), None]), (Ok(()), 2)));
        assert!(matches!(judge(&[Some(EMULATORS), Some(OURS)]), (Err(_), 2)));
        assert!(matches!(judge(&[Some(EMULATORS), Some(EMULATORS)]), (Err(_), 2)));
    }
}
