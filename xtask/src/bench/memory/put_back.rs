use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Reads to the end of its input, then writes each value to the file named before it.
const SCRIPT: &str = r#"cat; while [ $# -gt 1 ]; do printf %s "$2" > "$1"; shift 2; done"#;

/// Settings of the kernel that are as they were once this is dropped, or this process has ended, whatever ended it.
///
/// A process of its own waits for that at the other end of a pipe, out of reach of a terminal's interrupt.
#[derive(Debug)]
pub(crate) struct PutBack(Child);

impl PutBack {
    /// Remembers `settings`, files with the value that each is to have again, which are written in this order.
    pub(crate) fn new(settings: &[(PathBuf, String)]) -> Result<Self> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", SCRIPT, "put-back"]).process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
        for (path, value) in settings {
            shell.arg(path).arg(value);
        }
        shell.spawn().map(Self).context("starting a shell that will put the kernel's settings back")
    }

    /// The same for one file, with what it holds now; then sets it to `value`.
    pub(crate) fn set(path: &str, value: &str) -> Result<Self> {
        let before = read(Path::new(path))?;
        let put_back = Self::new(&[(path.into(), before)])?;
        write(Path::new(path), value)?;
        Ok(put_back)
    }
}

impl Drop for PutBack {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // What could not be written the shell has told.
        self.0.wait().ok();
    }
}

/// The value of a setting. Where it is one of several words, the one in brackets.
pub(crate) fn read(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(chosen, _)| chosen);
    Ok(chosen.unwrap_or(text.trim()).to_owned())
}

/// Sets `path` to `value`, and makes sure that it took effect.
pub(crate) fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("writing {value} to {}", path.display()))?;
    let is = read(path)?;
    ensure!(is == value, "{} is {is} after {value} was written to it", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_put_back_once_nobody_wants_it_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| directory.path().join(name));
        fs::write(&one, "[old] new\n").unwrap();
        assert_eq!(read(&one).unwrap(), "old");
        fs::write(&other, "it is 'so'\n").unwrap();
        let before = [&one, &other].map(|path| (path.clone(), read(path).unwrap()));
        let put_back = PutBack::new(&before).unwrap();
        write(&one, "new").unwrap();
        fs::write(&other, "").unwrap();
        assert_eq!(read(&one).unwrap(), "new");
        drop(put_back);
        assert_eq!(fs::read_to_string(&one).unwrap(), "old");
        assert_eq!(fs::read_to_string(&other).unwrap(), "it is 'so'");
    }

    #[test]
    fn it_is_put_back_after_a_sudden_end_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("setting");
        fs::write(&path, "new").unwrap();
        let mut put_back = PutBack::new(&[(path.clone(), "old".to_owned())]).unwrap();
        // The kernel closes the pipe of a process that was killed.
        drop(put_back.0.stdin.take());
        put_back.0.wait().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }
}
