//! Processor time of VMMs' pagers, as the kernel accounts it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// What VMMs call the thread that pages out.
const PAGER: &str = "pager";

/// Returns the processor time that the pagers of the processes `pids` have taken together.
pub(super) fn time(pids: &[u32]) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for pid in pids {
        let tasks = format!("/proc/{pid}/task");
        for task in fs::read_dir(&tasks).with_context(|| format!("reading {tasks}"))? {
            sum += of_task(&task?.path()).unwrap_or_default();
        }
    }
    Ok(sum)
}

/// Returns the processor time of the pager `task`; `None` of another thread, and of one that ends
/// just now.
fn of_task(task: &Path) -> Option<Duration> {
    let name = fs::read_to_string(task.join("comm")).ok()?;
    let schedstat = fs::read_to_string(task.join("schedstat")).ok()?;
    if name.trim_end() == PAGER { on_processor(&schedstat) } else { None }
}

/// Returns the time on a processor of a thread with this `schedstat`: its first number, in
/// nanoseconds.
fn on_processor(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use std::process;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn pagers_count_and_other_threads_do_not() {
        let (end, ends) = mpsc::channel::<()>();
        let before = time(&[process::id()]).unwrap();
        let pager = thread::Builder::new().name(PAGER.to_owned()).spawn(move || {
            let own = || on_processor(&fs::read_to_string("/proc/thread-self/schedstat").unwrap()).unwrap();
            while own() < Duration::from_millis(20) {}
            ends.recv().ok()
        });
        let pager = pager.unwrap();
        while time(&[process::id()]).unwrap() < before + Duration::from_millis(20) {}
        drop(end);
        pager.join().unwrap();
        assert_eq!(time(&[process::id()]).unwrap(), before, "the thread is gone");
    }
}
