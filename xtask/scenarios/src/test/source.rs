//! The steps that cargo does: formatting, lints, documentation, unit and property tests.

use std::process::Stdio;

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
        arguments: "fmt --all --check -- fuzz/src/main.rs",
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
        about: "clippy has nothing to say about the model check",
        arguments: "clippy --locked --package plimsoll-pmap --features model-check --all-targets --quiet -- -D warnings",
        environment: &[],
    },
    Step {
        name: "lint-fuzz",
        about: "clippy has nothing to say about the fuzzing code",
        arguments: "clippy --locked --package plimsoll-bootdisk --package plimsoll-vmm --package plimsoll-host --package plimsoll-pmap --package plimsoll-image --features plimsoll-bootdisk/fuzzing,plimsoll-vmm/fuzzing,plimsoll-host/fuzzing,plimsoll-pmap/fuzzing,plimsoll-image/fuzzing --quiet -- -D warnings",
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
        let mut cargo = preflight::cargo::command();
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

    /// Longest line of a comment, in columns. Tables and code in comments may be longer.
    const WIDTH: usize = 100;

    #[test]
    fn comments_are_narrow_and_headings_stand_alone() {
        let (mut files, mut bad) = (0, Vec::new());
        let mut directories =
            ["crates", "fuzz/src", "xtask"].map(|name| workspace::root().join(name)).to_vec();
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    files += 1;
                    let text = std::fs::read_to_string(&path).unwrap();
                    let lines = badly_set(&text).into_iter();
                    bad.extend(lines.map(|line| format!("{}:{line}", path.display())));
                }
            }
        }
        assert!(files > 300, "only {files} files were found");
        assert!(
            bad.is_empty(),
            "comments of more than {WIDTH} columns, or text behind a heading:\n{}",
            bad.join("\n")
        );
    }

    /// Headings of docs that stand on lines of their own.
    const HEADINGS: [&str; 3] = ["# Errors ", "# Panics ", "# Safety "];

    /// Numbers of the lines with comments that are too wide or go on behind a heading.
    fn badly_set(text: &str) -> Vec<usize> {
        let (mut code, mut lines) = (false, Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            let comment =
                line.trim_start().strip_prefix("//").map(|c| c.trim_start_matches(['/', '!']).trim_start());
            let Some(comment) = comment else {
                code = false;
                continue;
            };
            code ^= comment.starts_with("```");
            let wide = line.chars().count() > WIDTH && !comment.starts_with('|');
            let heading = HEADINGS.iter().any(|heading| comment.starts_with(heading));
            if (wide || heading) && !code {
                lines.push(number);
            }
        }
        lines
    }

    #[test]
    fn tables_and_code_in_comments_may_be_wide() {
        let wide = "x".repeat(WIDTH);
        let text = format!(
            "// {wide}\n//! | {wide} |\n/// ```\n/// {wide}\n/// ```\nlet a = {wide};\n    /// {wide}\n/// # Errors\n/// # Errors None.\n"
        );
        assert_eq!(badly_set(&text), [1, 7, 9]);
    }

    #[test]
    fn preflight_knows_the_steps_that_need_no_lab() {
        let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        assert_eq!(
            [
                names.as_slice(),
                &[super::super::FUZZ, super::super::images::NAME],
                &[super::super::prometheus::NAME, super::super::PACKAGE]
            ]
            .concat(),
            preflight::SOURCE_STEPS
        );
    }
}
