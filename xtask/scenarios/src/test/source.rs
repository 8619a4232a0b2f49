//! The steps that cargo does: formatting, lints, documentation, unit and property tests.

use std::env;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use plimsoll_lab::workspace;

/// One step.
pub(super) struct Step {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) about: &'static str,
    /// Cargo's, with spaces between them.
    arguments: &'static str,
    environment: &'static [(&'static str, &'static str)],
}

/// All of them, the quickest first.
pub(super) const STEPS: &[Step] = &[
    Step {
        name: "format",
        about: "rustfmt changes nothing",
        arguments: "fmt --all --check",
        environment: &[],
    },
    Step {
        name: "lint",
        about: "clippy has nothing to say",
        arguments: "clippy --locked --workspace --all-targets --quiet -- -D warnings",
        environment: &[],
    },
    Step {
        name: "lint-model",
        about: "nor about the model check",
        arguments: "clippy --locked --package plimsoll-pmap --features model-check --all-targets --quiet -- -D warnings",
        environment: &[],
    },
    Step {
        name: "doc",
        about: "the documentation builds without a warning",
        arguments: "doc --locked --workspace --no-deps --document-private-items --quiet",
        // With private items documented, links to them lead somewhere.
        environment: &[("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links")],
    },
    Step {
        name: "unit",
        about: "unit and property tests",
        arguments: "test --locked --workspace --quiet",
        environment: &[],
    },
    Step {
        name: "counters",
        about: "10^9 verified writes of CPUs, a vCPU and a disk to memory that comes and goes",
        arguments: "test --locked --package plimsoll-pmap --lib --quiet counters::no_write_is_lost -- --nocapture",
        environment: &[("PLIMSOLL_STRESS_WRITES", "1000000000")],
    },
    Step {
        name: "model",
        about: "the pmap's state machine under every kind of schedule",
        arguments: "test --locked --package plimsoll-pmap --lib --features model-check --quiet model_check",
        environment: &[],
    },
];

impl Step {
    /// Runs it. What it prints is shown when it fails, or when `verbose`.
    pub(super) fn run(&self, verbose: bool) -> Result<()> {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(self.arguments.split(' ')).envs(self.environment.iter().copied());
        cargo.current_dir(workspace::root()).stdin(Stdio::null());
        let what = format!("cargo {}", self.arguments);
        if verbose {
            let status =
                cargo.stdout(std::io::stderr()).status().with_context(|| format!("starting {what}"))?;
            return if status.success() { Ok(()) } else { bail!("{what} ended with {status}") };
        }
        let output = cargo.output().with_context(|| format!("starting {what}"))?;
        if !output.status.success() {
            let text = [output.stdout, output.stderr].concat();
            bail!("{what} ended with {}:\n{}", output.status, String::from_utf8_lossy(&text).trim());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preflight_knows_the_steps_that_need_no_lab() {
        let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        assert_eq!(names, preflight::SOURCE_STEPS);
    }
}
