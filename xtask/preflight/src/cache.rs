//! The cache: a directory for what is downloaded or built once.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// The variable that names another directory.
pub const VARIABLE: &str = "PLIMSOLL_CACHE";

/// The directory for what is downloaded or built once: kernels, images. Made when missing.
/// It may be deleted at any time; everything in it is made again.
///
/// # Errors
/// There is no such place, or it cannot be written.
pub fn directory() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = set(VARIABLE)
        .or_else(|| set("XDG_CACHE_HOME").map(|path| path.join("plimsoll")))
        .or_else(|| set("HOME").map(|path| path.join(".cache/plimsoll")))
        .context("no place for a cache: set PLIMSOLL_CACHE to a directory that may be written")?;
    fs::create_dir_all(&path).with_context(|| {
        format!("making the cache {}: set PLIMSOLL_CACHE to a directory that may be written", path.display())
    })?;
    Ok(path)
}
