use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use plimsoll_protocol::VmName;
use rustix::rand::{GetRandomFlags, getrandom};

use super::run;
use crate::context::Context;
use crate::guest::Input;

/// The guest's part of a copy, for any shell: it has a file's name, content and mark from us.
const WRITE: &str = include_str!("write.sh");

/// Copies the file `from` to `to` in the guest of `vm`.
///
/// # Errors
/// The file cannot be read to its end, or not be written. What was at `to` is there as before.
pub(super) fn send(from: &Path, vm: &VmName, to: &str, context: &Context) -> Result<()> {
    let name = from.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{}: it has no name that is text", from.display()))?;
    let file = open(from)?;
    let mark = mark()?;
    let words = ["sh", "-c", WRITE, "sh", to, name, &mark];
    // The guest learns by the mark that it has all: its input also ends where its agent does.
    let content = file.chain(Cursor::new(mark.clone()));
    let input = Input { name: from.display().to_string(), from: content };
    run(vm, &words, input, |_| Ok(()), context).with_context(|| format!("{vm}:{to}"))
}

fn open(path: &Path) -> Result<File> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    // It opens as files do, and its first read fails.
    if file.metadata().with_context(|| path.display().to_string())?.is_dir() {
        bail!("{}: it is a directory; cp copies one file", path.display());
    }
    Ok(file)
}

/// A text that neither a user of the guest nor the content of a file can foresee.
fn mark() -> Result<String> {
    let mut random = [0; 16];
    getrandom(&mut random, GetRandomFlags::empty()).context("random numbers of the kernel")?;
    Ok(format!("{:032x}", u128::from_le_bytes(random)))
}

#[cfg(test)]
mod tests;
