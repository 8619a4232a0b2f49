//! Processes as the kernel shows them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use plimsoll_units::Bytes;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// The id of its parent.
    pub parent: u32,
    /// It has ended, and its parent has not asked how.
    pub is_dead: bool,
    /// The first argument of its command line.
    pub title: String,
}

/// All processes of this machine that are there while this looks.
pub fn all() -> Result<Vec<Process>> {
    let entries = fs::read_dir("/proc").context("reading /proc")?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter_map(one).collect())
}

/// The process `pid`; `None` when it is gone.
fn one(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (state, parent) = state_and_parent(&stat)?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let title = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let title = String::from_utf8_lossy(title).into_owned();
    Some(Process { pid, parent, is_dead: matches!(state, 'Z' | 'X'), title })
}

/// The state and the parent in a process' or a thread's `stat`.
pub(crate) fn state_and_parent(stat: &str) -> Option<(char, u32)> {
    // The name before them may hold anything but ends with the last parenthesis.
    let mut words = stat.rsplit_once(") ")?.1.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

/// How many descriptors process `pid` has open.
pub fn descriptors(pid: u32) -> Result<usize> {
    entries(&format!("/proc/{pid}/fd")).map(|entries| entries.len())
}

/// How many threads process `pid` has.
pub fn threads(pid: u32) -> Result<usize> {
    entries(&format!("/proc/{pid}/task")).map(|entries| entries.len())
}

/// The files in memory whose names begin with `name` that process `pid` has open or maps: the
/// memory in each by its inode.
pub fn memory_files(pid: u32, name: &str) -> Result<BTreeMap<u64, Bytes>> {
    let name = format!("/memfd:{name}");
    let mut files = BTreeMap::new();
    let mut add = |path: PathBuf| {
        // It may be closed or unmapped meanwhile.
        if let Ok(file) = fs::metadata(path) {
            files.insert(file.ino(), Bytes(file.blocks() * 512));
        }
    };
    for path in entries(&format!("/proc/{pid}/fd"))? {
        if fs::read_link(&path).is_ok_and(|file| file.to_string_lossy().starts_with(&name)) {
            add(path);
        }
    }
    let maps = format!("/proc/{pid}/maps");
    let maps = fs::read_to_string(&maps).with_context(|| format!("reading {maps}"))?;
    let mapped: BTreeMap<&str, &str> = maps.lines().filter_map(|line| mapped(line, &name)).collect();
    mapped.values().for_each(|range| add(format!("/proc/{pid}/map_files/{range}").into()));
    Ok(files)
}

/// The inode and the range of addresses of a line of `maps`, if it is of a file with that name.
fn mapped<'a>(line: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let mut words = line.split_whitespace();
    let (range, inode) = (words.next()?, words.nth(3)?);
    words.next()?.starts_with(name).then_some((inode, range))
}

/// What the threads of process `pid` do: their names, states, and stacks in the kernel. For people.
pub fn stacks(pid: u32) -> String {
    let mut text = String::new();
    for task in entries(&format!("/proc/{pid}/task")).unwrap_or_default() {
        let read = |file: &str| fs::read_to_string(task.join(file)).unwrap_or_default();
        let state = state_and_parent(&read("stat")).map_or('?', |(state, _)| state);
        let stack: Vec<String> = read("stack")
            .lines()
            .filter_map(|line| Some(line.split_whitespace().nth(1)?.to_owned()))
            .collect();
        let (name, shown) = (read("comm"), task.file_name().unwrap_or_default().to_string_lossy());
        // A string takes all that is written to it.
        writeln!(text, "{shown} {} {state} {}", name.trim_end(), stack.join(" < ")).ok();
    }
    text
}

fn entries(directory: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("reading {directory}"))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{self, Command};

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    #[test]
    fn processes_are_told_by_their_titles_and_dead_ones_apart() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let find = || all().unwrap().into_iter().find(|process| process.pid == child.id()).unwrap();
        // A program that has just begun has no title for a moment.
        while find().title.is_empty() {}
        let alive = find();
        assert_eq!((alive.parent, alive.is_dead, alive.title.as_str()), (process::id(), false, "sleep"));
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&child),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        while !find().is_dead {}
        child.wait().unwrap();
        assert_eq!(state_and_parent("1 (a) b) S 7 0"), Some(('S', 7)));
    }

    #[test]
    fn files_in_memory_are_found_with_what_is_in_them() {
        let mut file = fs::File::from(memfd_create("plimsoll-test-file", MemfdFlags::CLOEXEC).unwrap());
        let find =
            || memory_files(process::id(), "plimsoll-test-file").unwrap().into_values().collect::<Vec<_>>();
        assert_eq!(find(), [Bytes::ZERO]);
        file.write_all(&[1; 8192]).unwrap();
        assert_eq!(find(), [Bytes(8192)]);
        drop(file);
        assert_eq!(find(), []);
        let line = "7f00-7f10 r--p 00000000 00:01 42    /memfd:plimsoll-frames (deleted)";
        assert_eq!(mapped(line, "/memfd:plimsoll-frames"), Some(("42", "7f00-7f10")));
        assert_eq!(mapped("7f00-7f10 rw-p 00000000 00:00 0", "/memfd:plimsoll-frames"), None);
    }

    #[test]
    fn stacks_name_the_threads() {
        let text = stacks(process::id());
        // A thread's name has 15 characters: the beginning of the test's path.
        assert!(text.contains("process::tests:"), "{text}");
    }
}
