//! `plimsoll doctor`: prints what [`crate::doctor`] finds about this host.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use crate::doctor::{Check, Verdict, checks};
use crate::output::Output;

pub(crate) const HELP: &str = "\
Verdicts:
  ok       works in full
  limited  works with limits
  missing  does not work; the lines below it say what follows and what to do

The exit status is 0 where VMs can run, else 1. Run it as the user that plimsolld runs as, usually root.

Examples:
  plimsoll doctor
  plimsoll doctor --json | jq '.checks[] | select(.verdict != \"ok\")'";

#[derive(Serialize)]
struct Report {
    can_run: bool,
    checks: Vec<Check>,
}

pub(crate) fn run(output: &Output) -> Result<ExitCode> {
    let checks = checks();
    let report = Report { can_run: !checks.iter().any(Check::prevents_vms), checks };
    output.facts(&report, text)?;
    Ok(if report.can_run { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(report: &Report) -> String {
    let width = report.checks.iter().map(|c| c.name.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for Check { name, verdict, found, means, todo, .. } in &report.checks {
        lines.push(format!("{verdict:<7}  {name:<width$}  {found}"));
        for (mark, text) in [("", means), ("-> ", todo)] {
            if !text.is_empty() {
                lines.push(format!("{:<7}  {:<width$}    {mark}{text}", "", ""));
            }
        }
    }
    lines.push(String::new());
    lines.push(summary(&report.checks));
    lines.join("\n")
}

fn summary(checks: &[Check]) -> String {
    let names = |which: &dyn Fn(&Check) -> bool| {
        checks.iter().filter(|c| which(c)).map(|c| c.name).collect::<Vec<_>>().join(", ")
    };
    let preventing = names(&Check::prevents_vms);
    if !preventing.is_empty() {
        return format!("This host cannot run guests (failed check: {preventing}).");
    }
    let parts: Vec<String> = checks
        .iter()
        .filter(|c| c.verdict == Verdict::Missing)
        .filter_map(|c| c.jail.map(|part| part.to_string()))
        .collect();
    let limited = names(&|c| c.verdict != Verdict::Ok);
    match (limited.as_str(), parts.as_slice()) {
        ("", _) => "This host can run VMs with all features.".to_owned(),
        (limited, []) => format!("This host can run VMs with limits: see {limited}."),
        (limited, parts) => format!(
            "This host can run VMs whose definitions allow a jail without {}, with limits: see {limited}.",
            parts.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_protocol::definition::JailPart;

    use super::*;

    #[test]
    fn what_is_not_well_is_explained_below() {
        let checks = vec![
            Check::ok("kvm", "works").needed(),
            Check::limited("io-uring", "forbidden", "disks are slow", "allow it"),
        ];
        let expected = "\
ok       kvm       works
limited  io-uring  forbidden
                     disks are slow
                     -> allow it

This host can run VMs with limits: see io-uring.";
        assert_eq!(text(&Report { can_run: true, checks }), expected);
    }

    #[test]
    fn the_summary_says_whether_vms_run() {
        let fine = Check::ok("kernel", "new").needed();
        assert_eq!(summary(std::slice::from_ref(&fine)), "This host can run VMs with all features.");
        let jail = Check::missing("cgroup", "x", "x", "x").jail(JailPart::Cgroup);
        assert!(summary(&[fine.clone(), jail]).contains("without cgroup"));
        let kvm = Check::missing("kvm", "x", "x", "x").needed();
        assert_eq!(summary(&[fine, kvm]), "This host cannot run guests (failed check: kvm).");
    }
}
