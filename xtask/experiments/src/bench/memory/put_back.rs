//! Settings of the kernel that are changed for a measurement, and put back whatever ends it.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, FdFlags, fcntl_setfd};

/// Reads to the end of its input, then writes each value to the file named before it.
const SCRIPT: &str = r#"cat; while [ $# -gt 1 ]; do printf %s "$2" > "$1"; shift 2; done"#;

/// How long it may take until a process that has ended has its settings put back. A process that
/// holds them for longer is running.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The right to change settings: their files, locked.
///
/// What a setting holds is its original value only once no other process is about to put it back. A
/// process that was killed a moment ago has left its own value there; the next one would take that
/// for the original, and put it back in the end. So files are locked before they are read, and it
/// is the process that puts them back that keeps the locks, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Claim(Vec<File>);

impl Claim {
    /// Waits for processes that are about to put these settings back. Fails where another process
    /// uses them.
    pub(crate) fn of(paths: &[PathBuf]) -> Result<Self> {
        Self::within(TIMEOUT, paths)
    }

    fn within(limit: Duration, paths: &[PathBuf]) -> Result<Self> {
        let deadline = Instant::now() + limit;
        paths.iter().map(|path| lock(path, deadline)).collect::<Result<_>>().map(Self)
    }

    /// Whether a process that is started now gets the locks, too.
    fn pass_on(&self, flags: FdFlags) -> Result<()> {
        self.0
            .iter()
            .try_for_each(|file| fcntl_setfd(file, flags))
            .context("passing on the locks of settings")
    }
}

fn lock(path: &Path, deadline: Instant) -> Result<File> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(Errno::WOULDBLOCK) => {
                bail!("{} is set by another benchmark: wait for its end", path.display())
            }
            Err(e) => {
                return Err(e).with_context(|| format!("locking {}", path.display()));
            }
        }
    }
}

/// Settings of the kernel that are as they were once this is dropped, or this process has ended,
/// whatever ended it.
///
/// A process of its own waits for that at the other end of a pipe, out of reach of a terminal's
/// interrupt.
#[derive(Debug)]
pub(crate) struct PutBack(Child);

impl PutBack {
    /// Remembers `settings`, files with the value that each is to have again, which are written in
    /// this order. They were claimed before those values were read.
    pub(crate) fn new(claim: &Claim, settings: &[(PathBuf, String)]) -> Result<Self> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", SCRIPT, "put-back"]).process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
        for (path, value) in settings {
            shell.arg(path).arg(value);
        }
        claim.pass_on(FdFlags::empty())?;
        let shell = shell.spawn().context("starting a shell that will put the kernel's settings back");
        claim.pass_on(FdFlags::CLOEXEC)?;
        shell.map(Self)
    }

    /// The same for one file, with what it holds now; then sets it to `value`.
    pub(crate) fn set(path: &str, value: &str) -> Result<Self> {
        let claim = Claim::of(&[path.into()])?;
        let before = read(Path::new(path))?;
        let put_back = Self::new(&claim, &[(path.into(), before)])?;
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
        let claim = Claim::of(&[one.clone(), other.clone()]).unwrap();
        let put_back = PutBack::new(&claim, &before).unwrap();
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
        let claim = Claim::of(std::slice::from_ref(&path)).unwrap();
        let mut put_back = PutBack::new(&claim, &[(path.clone(), "old".to_owned())]).unwrap();
        // The kernel closes the pipe of a process that was killed.
        drop(put_back.0.stdin.take());
        put_back.0.wait().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }

    /// A process that comes right after one that was killed waits until it is put back, and takes
    /// that for the original.
    #[test]
    fn nobody_takes_a_changed_value_for_the_original() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("setting");
        fs::write(&path, "old").unwrap();
        let name = path.to_str().unwrap();
        let mut killed = PutBack::set(name, "raised").unwrap();
        let refused = Claim::within(Duration::ZERO, std::slice::from_ref(&path)).unwrap_err();
        assert!(refused.to_string().contains("another benchmark"), "{refused:#}");
        // It is gone: its end of the pipe is closed, and no process waits for the one that puts it
        // back.
        let pipe = killed.0.stdin.take();
        let next = thread::spawn({
            let name = name.to_owned();
            move || PutBack::set(&name, "other")
        });
        drop(pipe);
        let next = next.join().unwrap().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "other");
        drop((next, killed));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }
}
