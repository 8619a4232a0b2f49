//! `swapon` and `swapoff`: the kernel's own swapping, to compare with.

use std::ffi::{CString, c_char, c_int};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use anyhow::{Context, Result, ensure};
use plimsoll_units::PAGE_SIZE;

/// What the names of our files begin with. The number of the process follows.
const PREFIX: &str = "bench-swap-";

/// The name of the file that the kernel swaps to: for the signal handler, which can take no lock
/// and no memory.
static IN_USE: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());

/// A file that the kernel swaps to until this is dropped, or the process is interrupted or told to
/// end. There can be one.
#[derive(Debug)]
pub(crate) struct KernelSwap {
    path: PathBuf,
    on: bool,
}

impl KernelSwap {
    /// Makes a file of `pages` pages in `directory` and has the kernel swap to it.
    ///
    /// Where there is swap space already the kernel might use that, and would be measured on
    /// another disk: then this fails. What a benchmark that was killed has left behind is taken
    /// away first.
    pub(crate) fn new(directory: &Path, pages: u32) -> Result<Self> {
        take_stale_away(directory)?;
        let others = fs::read_to_string("/proc/swaps").context("reading /proc/swaps")?;
        ensure!(others.lines().count() <= 1, "this machine swaps already, to elsewhere");
        let path = directory.join(format!("{PREFIX}{}", std::process::id()));
        let mut swap = Self { path, on: false };
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&swap.path);
        let file = made.with_context(|| format!("making {}", swap.path.display()))?;
        format(&file, pages).with_context(|| format!("writing {}", swap.path.display()))?;
        let name = name(&swap.path)?;
        // Never freed: the handler may look at it at any time.
        IN_USE.store(name.clone().into_raw(), Ordering::SeqCst);
        for signal in [libc::SIGINT, libc::SIGTERM] {
            end_on(signal).context("catching a signal")?;
        }
        // SAFETY: swapon reads the name, which ends with a NUL, and changes nothing in this
        // process.
        let result = unsafe { libc::swapon(name.as_ptr(), 0) };
        if result == -1 {
            return Err(io::Error::last_os_error()).context("the kernel does not let us use swapon");
        }
        swap.on = true;
        Ok(swap)
    }
}

/// Ends swapping to `path`: what was swapped out comes back.
fn swap_off(path: &Path) -> Result<()> {
    let name = name(path)?;
    // SAFETY: swapoff reads the name, which ends with a NUL.
    let result = unsafe { libc::swapoff(name.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error().into()) }
}

fn name(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// From now on `signal` takes the file away before it ends the process.
fn end_on(signal: c_int) -> io::Result<()> {
    // SAFETY: a structure of integers, for which zeros are valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = take_away_and_end as *const () as libc::sighandler_t;
    // The other signal waits: swapoff gives up when one comes.
    // SAFETY: the set is valid for the call.
    unsafe { libc::sigfillset(&raw mut action.sa_mask) };
    // SAFETY: the structure is valid for the call, and the handler does nothing that a handler may
    // not.
    let result = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn take_away_and_end(signal: c_int) {
    let name = IN_USE.load(Ordering::SeqCst);
    if !name.is_null() {
        // SAFETY: the name ends with a NUL and is never freed. A handler may call what is no more
        // than a system call.
        unsafe { libc::swapoff(name) };
        // SAFETY: the same.
        unsafe { libc::unlink(name) };
    }
    // SAFETY: a handler may call it.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: a handler may call it. The signal comes when the handler returns, and then ends the
    // process.
    unsafe { libc::raise(signal) };
}

/// Takes files away, and out of use, that benchmarks have left behind which were killed.
fn take_stale_away(directory: &Path) -> Result<()> {
    let swaps = fs::read_to_string("/proc/swaps").context("reading /proc/swaps")?;
    for path in swap_files(&swaps).filter(|path| is_stale(path)) {
        swap_off(&path)
            .with_context(|| format!("ending a killed benchmark's swapping to {}", path.display()))?;
        fs::remove_file(&path).ok();
    }
    let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_stale(path)) {
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

/// The files in the text of `/proc/swaps`.
fn swap_files(text: &str) -> impl Iterator<Item = PathBuf> {
    let first = |line: &str| line.split_whitespace().next().map(|name| name.replace("\\040", " ").into());
    text.lines().skip(1).filter_map(first)
}

/// Whether it is the file of a benchmark that runs no more.
fn is_stale(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let owner = name.and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
    let comm = |process: u32| fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    // Another program may have that number by now; and it is ours where a machine started anew.
    owner.is_some_and(|owner| owner == std::process::id() || comm(owner) != comm(std::process::id()))
}

impl Drop for KernelSwap {
    fn drop(&mut self) {
        // Where it is still in use the name must stay: the next benchmark finds it by that.
        if !self.on || swap_off(&self.path).is_ok() {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Writes all of a swap file, without holes, and its header: version 1 (`union swap_header` in
/// Linux).
fn format(file: &File, pages: u32) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let len = u64::from(pages) * PAGE_SIZE;
    let mut at = 0;
    while at < len {
        let part = zeros.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
        file.write_all_at(&zeros[..part], at)?;
        at += part as u64;
    }
    let words = [1, pages - 1, 0];
    file.write_all_at(&words.map(u32::to_le_bytes).concat(), 1024)?;
    file.write_all_at(b"SWAPSPACE2", PAGE_SIZE - 10)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_in_the_kernels_list() {
        let text = "Filename\tType\tSize\tUsed\tPriority\n/a/bench-swap-1   file\t8\t0\t-2\n/b\\040c   file\t8\t0\t-3\n";
        let found: Vec<_> = swap_files(text).collect();
        assert_eq!(found, [Path::new("/a/bench-swap-1"), Path::new("/b c")]);
    }

    #[test]
    fn what_a_killed_benchmark_left_is_taken_away_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        // No process has such a number: the kernel's limit is 2^22.
        let (stale, other) =
            (directory.path().join("bench-swap-99999999"), directory.path().join("bench-swap-a"));
        // The first process is no benchmark.
        let reused = directory.path().join("bench-swap-1");
        for path in [&stale, &other, &reused] {
            File::create(path).unwrap();
        }
        take_stale_away(directory.path()).unwrap();
        assert!(!stale.exists() && other.exists() && !reused.exists());
    }
}
