//! The kernel's own merging of equal pages, and its settings.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::put_back::{self, Claim, PutBack};

const DIRECTORY: &str = "/sys/kernel/mm/ksm";

/// What every knob is set to, in this order; kernels that lack one do without. The daemon never
/// sleeps, it is not slowed down, and zero pages are merged with the kernel's own.
const KNOBS: [(&str, &str); 8] = [
    // An advisor would choose how many pages are scanned.
    ("advisor_mode", "none"),
    // At a time. More would only make what it has done appear later.
    ("pages_to_scan", "1000"),
    ("sleep_millisecs", "0"),
    ("use_zero_pages", "1"),
    ("max_page_sharing", "256"),
    ("merge_across_nodes", "1"),
    ("smart_scan", "1"),
    ("stable_node_chains_prune_millisecs", "2000"),
];

/// Nothing is scanned; what was merged stays. 1 scans; 2 takes everything apart.
const STOPPED: &str = "0";
const SCANNING: &str = "1";
const UNMERGED: &str = "2";

/// The kernel's own merging of equal pages, with its knobs opened until this is dropped.
#[derive(Debug)]
pub(crate) struct Ksm {
    /// CPU time of its daemon.
    schedstat: PathBuf,
    _put_back: PutBack,
}

/// What it says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KsmCounts {
    /// Pages that were given up for an equal one.
    pub(crate) merged: u64,
    /// Pages that were given up for the kernel's page of zeros. Where it splits a huge page, Linux
    /// 6.12 does the same to those in it, and does not count them.
    pub(crate) zeroed: u64,
    pub(crate) full_scans: u64,
    /// Bytes saved, less the bytes of its records of pages: its own account.
    pub(crate) profit: i64,
}

impl Ksm {
    /// Opens the knobs. Fails where the kernel has no KSM or does not let us, or where another
    /// program else uses it.
    pub(crate) fn new() -> Result<Self> {
        // One lock for all: a program that sets the others sets this one.
        let claim = Claim::of(&[path("run")])?;
        ensure!(
            counter("pages_shared")? == 0,
            "another program uses KSM: its figures would be mixed with ours"
        );
        let run = read("run")?;
        // What we leave behind is taken apart first, because some knobs only move while nothing is
        // shared; and the advisor comes last but one, because it holds another.
        let mut before = vec![(path("run"), UNMERGED.to_owned())];
        let knobs: Vec<_> = KNOBS.into_iter().filter(|(knob, _)| path(knob).exists()).collect();
        for (knob, _) in knobs.iter().rev() {
            before.push((path(knob), read(knob)?));
        }
        before.push((path("run"), run));
        let put_back = PutBack::new(&claim, &before)?;
        let ksm = Self { schedstat: daemon()?.join("schedstat"), _put_back: put_back };
        ksm.unmerge()?;
        for (knob, value) in knobs {
            put_back::write(&path(knob), value)?;
        }
        Ok(ksm)
    }

    pub(crate) fn start(&self) -> Result<()> {
        put_back::write(&path("run"), SCANNING)
    }

    /// Returns when the daemon has ended what it was at. Fails where it had to do with other memory
    /// than ours.
    pub(crate) fn stop(&self) -> Result<()> {
        put_back::write(&path("run"), STOPPED)?;
        nobody_else()
    }

    /// Forgets everything.
    pub(crate) fn unmerge(&self) -> Result<()> {
        put_back::write(&path("run"), UNMERGED)
    }

    pub(crate) fn counts(&self) -> Result<KsmCounts> {
        Ok(KsmCounts {
            merged: counter("pages_sharing")?,
            zeroed: counter("ksm_zero_pages")?,
            full_scans: counter("full_scans")?,
            profit: read("general_profit")?.parse().context("reading KSM's profit")?,
        })
    }

    /// What its daemon has run since it started.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let text = fs::read_to_string(&self.schedstat)
            .with_context(|| format!("reading {}", self.schedstat.display()))?;
        let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
        nanoseconds
            .map(Duration::from_nanos)
            .with_context(|| format!("no CPU time in {}", self.schedstat.display()))
    }
}

/// Fails where the memory of another process was scanned: it and ours are counted together.
fn nobody_else() -> Result<()> {
    let processes = fs::read_dir("/proc").context("reading /proc")?;
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for process in numbers.filter(|&process| process != std::process::id()) {
        // A process that has ended meanwhile has nothing to tell, nor has one of an older kernel.
        let status = fs::read_to_string(format!("/proc/{process}/ksm_stat")).unwrap_or_default();
        let items = status.lines().find_map(|line| line.strip_prefix("ksm_rmap_items ")).unwrap_or("0");
        ensure!(
            items == "0",
            "process {process} lets KSM merge its memory: wait for its end (a QEMU does so unless it has mem-merge=off)"
        );
    }
    Ok(())
}

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

fn read(name: &str) -> Result<String> {
    put_back::read(&path(name))
}

fn counter(name: &str) -> Result<u64> {
    read(name)?.parse().with_context(|| format!("reading {name} of KSM"))
}

/// The directory of KSM's kernel thread in `/proc`.
fn daemon() -> Result<PathBuf> {
    let processes = fs::read_dir("/proc").context("reading /proc")?;
    let is_daemon = |path: &PathBuf| {
        // A kernel thread has no command line, whatever others call themselves.
        let no_command = fs::read(path.join("cmdline")).is_ok_and(|line| line.is_empty());
        no_command && fs::read_to_string(path.join("comm")).is_ok_and(|name| name == "ksmd\n")
    };
    let found = processes.flatten().map(|entry| entry.path()).find(is_daemon);
    found.context("KSM's daemon, ksmd, does not run here")
}
