//! `cargo xtask package`: the Debian package.
//!
//! [`cargo-deb`](https://crates.io/crates/cargo-deb) makes it from the list in this package's
//! `Cargo.toml`: the programs, the files in `packaging/`, and what is made here of the programs'
//! own definitions of their command lines, man pages ([`manual`]) and completions
//! ([`completions`]). [`check()`] installs and removes the result in a Debian of its own.
//!
//! This crate knows what is in the package and nothing of how the programs work.

mod check;
mod completions;
mod manual;
mod tool;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, Command, CommandFactory};
use plimsoll_lab::workspace::{self, note, step};

pub use self::check::check;

/// The programs that people type, with the section of the manual that describes them.
fn programs() -> [(Command, &'static str); 2] {
    [(plimsoll_cli::command(), "1"), (plimsoll_host::Arguments::command(), "8")]
}

/// Arguments of `cargo xtask package`.
#[derive(Debug, Args)]
pub struct PackageArgs {
    /// Directory to put the package in.
    #[arg(short, long, value_name = "DIR", default_value = "target/debian")]
    output: PathBuf,
    /// Revision of the package of this version of Plimsoll.
    #[arg(long, value_name = "N", default_value_t = 1)]
    revision: u32,
}

/// Does what `arguments` ask for.
///
/// # Errors
/// What failed.
pub fn run(arguments: &PackageArgs) -> Result<ExitCode> {
    workspace::build_for_models()?;
    let package = make(&arguments.output, arguments.revision)?;
    note(&package.display().to_string());
    Ok(ExitCode::SUCCESS)
}

/// Makes the package of the programs that are built, in the directory `output`.
fn make(output: &Path, revision: u32) -> Result<PathBuf> {
    generate(&workspace::root().join("target/package"))?;
    let cargo_deb = tool::cargo_deb()?;
    step("making the Debian package");
    fs::create_dir_all(output).with_context(|| format!("making {}", output.display()))?;
    let output = output.canonicalize()?;
    tool::make(&cargo_deb, &output, revision)?;
    let name = format!("plimsoll_{}-{revision}_amd64.deb", env!("CARGO_PKG_VERSION"));
    let package = output.join(name);
    ensure!(package.is_file(), "cargo-deb has not made {}", package.display());
    Ok(package)
}

/// Makes man pages and completions in `directory`, in place of those of an earlier run.
fn generate(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("removing {}", directory.display()))?;
    }
    let mut files = Vec::new();
    for (command, section) in programs() {
        files.extend(completions::of(&command));
        files.extend(manual::of(command, section)?);
    }
    files.push(manual::of_configuration(include_str!("../../../packaging/plimsolld.toml"))?);
    for (name, content) in files {
        let path = directory.join(name);
        let parent = path.parent().context("a file is in a directory")?;
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, content))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
