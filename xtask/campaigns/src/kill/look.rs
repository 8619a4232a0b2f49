//! What a person would look at after a failure.

use std::fmt::Write;

use plimsoll_operate::Stage;
use plimsoll_operate::process;

/// Lines of what may be long, from its end: what happened since the last point, with some to spare.
const LINES: usize = 60;

/// How things stand: all VMs, the daemon's log, and of the VM `concerned` all that is known.
pub(super) fn look(stage: &Stage, concerned: Option<&str>) -> String {
    let mut text = String::new();
    let mut commands = vec![vec!["ps"], vec!["events"]];
    commands.extend(
        concerned
            .iter()
            .flat_map(|name| [vec!["show", name], vec!["explain", name], vec!["logs", name, "--vmm"]]),
    );
    for command in commands {
        section(
            &mut text,
            &format!("plimsoll {}", command.join(" ")),
            &match stage.plimsoll(&command) {
                Ok(output) => String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
                Err(error) => format!("{error:#}"),
            },
        );
    }
    section(&mut text, "the daemon's log", &stage.daemon_log());
    let vmm = concerned.and_then(|name| Some((name, stage.vm(name).ok()?.pid?)));
    let daemon = stage.daemon_pid().ok().map(|pid| ("plimsolld", pid));
    for (name, pid) in daemon.into_iter().chain(vmm) {
        section(&mut text, &format!("threads of {name}, process {pid}"), &process::stacks(pid));
    }
    if let Some(name) = concerned {
        section(&mut text, &format!("the console of {name}"), &stage.console_tail(name));
    }
    text
}

fn section(text: &mut String, title: &str, body: &str) {
    let lines: Vec<&str> = body.trim_end().lines().collect();
    let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
    // A string takes all that is written to it.
    writeln!(text, "--- {title}\n{end}").ok();
}
