use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use plimsoll_protocol::VmName;

use super::run;
use crate::context::Context;
use crate::guest::Input;
use crate::part::{PUBLIC, Part};

/// Copies the file `from` of the guest of `vm` to `to`.
///
/// # Errors
/// The file cannot be read to its end, or not be written. What was at `to` is there as before.
pub(super) fn fetch(vm: &VmName, from: &str, to: &Path, context: &Context) -> Result<()> {
    let name = Path::new(from).file_name().with_context(|| format!("{from:?}: it has no name"))?;
    let to = destination(to, Path::new(name))?;
    let part = Part::begin(&to, PUBLIC).with_context(|| to.display().to_string())?;
    let write = |bytes: &[u8]| part.file().write_all(bytes).with_context(|| to.display().to_string());
    let nothing = Input { name: "no input".to_owned(), from: io::empty() };
    run(vm, &["cat", "--", from], nothing, write, context).with_context(|| format!("{vm}:{from}"))?;
    // It may have become something else meanwhile.
    check(&to)?;
    part.replace().with_context(|| to.display().to_string())
}

/// The file to write: `to`, or the file `name` in it where that is a directory.
fn destination(to: &Path, name: &Path) -> Result<PathBuf> {
    let file = if to.is_dir() { to.join(name) } else { to.to_owned() };
    if file.as_os_str().as_encoded_bytes().ends_with(b"/") {
        bail!("{}: it is not a directory", file.display());
    }
    check(&file)?;
    Ok(file)
}

/// Refuses what is not replaced: the name of a device or a pipe belongs to what is behind it.
fn check(path: &Path) -> Result<()> {
    match path.metadata() {
        Ok(there) if there.is_file() => Ok(()),
        Ok(there) if there.is_dir() => bail!("{}: it is a directory", path.display()),
        Ok(_) => bail!("{}: it is not a regular file, and is left as it is", path.display()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_a_regular_file_or_nothing_is_replaced() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        let name = Path::new("name");
        std::fs::write(path("file"), "").unwrap();
        std::fs::create_dir_all(path("inner/name")).unwrap();
        std::fs::create_dir(path("empty")).unwrap();
        assert!(Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
        for (link, to) in
            [("to-file", "file"), ("to-fifo", "fifo"), ("to-none", "none"), ("to-empty", "empty")]
        {
            symlink(to, path(link)).unwrap();
        }
        for free in ["file", "none", "to-file", "to-none"] {
            assert_eq!(destination(&path(free), name).unwrap(), path(free));
        }
        assert_eq!(destination(&path("empty"), name).unwrap(), path("empty/name"));
        assert_eq!(destination(&path("to-empty"), name).unwrap(), path("to-empty/name"));
        let why = |name: &str| destination(&path(name), Path::new("name")).unwrap_err().to_string();
        for special in ["fifo", "to-fifo"] {
            assert!(why(special).contains("not a regular file"), "{special}");
        }
        assert!(why("inner").contains("it is a directory") && why("none/").contains("not a directory"));
        let device = destination(Path::new("/dev/null"), name).unwrap_err().to_string();
        assert!(device.contains("not a regular file"), "{device}");
    }
}
