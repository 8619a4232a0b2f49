//! Where this runs, and what is beside it.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// Where the program `name` is: beside this one, in the lab as in cargo's target directory.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("finding this program's own file")?;
    let path = own.with_file_name(name);
    ensure!(path.is_file(), "{} is not there: build it first", path.display());
    Ok(path)
}

/// Whether this runs in the lab.
pub fn in_lab() -> bool {
    env::var_os("PLIMSOLL_LAB").is_some()
}

/// Where the lab has its copy of a directory of the outside.
pub fn share() -> PathBuf {
    env::var_os("PLIMSOLL_SHARE").map_or_else(|| PathBuf::from("/share"), PathBuf::from)
}
