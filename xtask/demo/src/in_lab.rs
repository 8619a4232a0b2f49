//! The demo in the lab, and what a fault of the emulator does to it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use plimsoll_lab::attempt::{Failed, judged};
use plimsoll_lab::wire::Request;
use plimsoll_lab::workspace::{self, note};
use plimsoll_lab::{Config, Lab, Switch, attach, show};

use crate::{DemoArgs, age};

/// How long the demo in the lab may take; two to four minutes are usual.
const LIMIT: Duration = Duration::from_secs(1200);

/// Runs the demo in the lab, and once more where the emulator has failed.
pub(crate) fn run(arguments: &DemoArgs) -> Result<ExitCode> {
    let programs = workspace::build()?;
    let config =
        Config { kernel: arguments.host_kernel, npt: arguments.npt == Switch::On, ..Config::default() };
    let boot = || {
        Lab::boot(&config, &programs)
            .context("`cargo xtask demo --model` needs no lab: its guests are host threads")
    };
    let mut excused = false;
    let mut once = |_: &str| !std::mem::replace(&mut excused, true);
    let mut lab = judged("the demo", &mut || attempt(arguments, boot), &mut once)?;
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
    let mut lab = boot()?;
    let waited = age::of_this_process()?.as_secs_f64();
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
