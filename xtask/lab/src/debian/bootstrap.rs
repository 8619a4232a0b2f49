//! Root file systems that `mmdebstrap` makes, of packages from the mirrors that this machine's apt
//! is configured with.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use preflight::{lists, program};

use super::mirrors;

/// What a root file system is made of.
pub(super) struct Bootstrap<'a> {
    /// The packages that are there in any case, as mmdebstrap names them.
    pub(super) variant: &'a str,
    /// Further packages, with commas between them.
    pub(super) packages: &'a str,
    /// A shell script that runs last, with the root as its argument. It finds `files` in `$IN`, and
    /// what it writes to `$OUT` is kept; the root is not.
    pub(super) finish: &'a str,
    /// Names and contents of files for the script.
    pub(super) files: &'a [(&'a str, &'a str)],
    /// Names and values of variables for the script.
    pub(super) variables: &'a [(&'a str, String)],
}

impl Bootstrap<'_> {
    /// Makes it, and leaves in the directory `out` what the script writes.
    ///
    /// # Errors
    /// mmdebstrap is not there, or fails; its last lines are in the error.
    pub(super) fn run(&self, out: &Path) -> Result<()> {
        let sources = lists::with_fresh(mirrors::sources)?;
        let input = tempfile::tempdir_in(out)?;
        let finish = input.path().join("finish");
        for (name, content) in self.files.iter().copied().chain([("finish", self.finish)]) {
            fs::write(input.path().join(name), content)?;
        }
        let mut command =
            Command::new(program::find("mmdebstrap").context("mmdebstrap not found: install it")?);
        command.args(["--quiet", &format!("--variant={}", self.variant)]);
        command.arg(format!("--include={}", self.packages));
        command.arg(r#"--aptopt=Apt::Install-Recommends "false""#);
        mirrors::options()?.iter().for_each(|option| {
            command.arg(format!("--aptopt={option}"));
        });
        for path in ["doc", "man", "locale", "info"] {
            command.arg(format!("--dpkgopt=path-exclude=/usr/share/{path}/*"));
        }
        command.arg(format!("--customize-hook=sh {} \"$1\"", finish.display()));
        command.args(["--format=null", &mirrors::suite(&sources)?, "-"]);
        command.args(sources.iter().map(mirrors::Source::line));
        command.env("IN", input.path()).env("OUT", out);
        command.envs(self.variables.iter().map(|(name, value)| (*name, value)));
        let output = command.stdin(Stdio::null()).output().context("starting mmdebstrap")?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(15)..];
            bail!("mmdebstrap failed; its last lines:\n{}", last.join("\n"));
        }
        Ok(())
    }
}
