//! The demo itself, on a host that can run its guests: phases in which each guest in turn needs its
//! whole memory.
//!
//! In its turn a guest fills most of its memory with patterns and verifies them. Then it frees
//! them, which gives the memory back through free page reporting; keeps a few patterns, which must
//! not be lost; and fills its page cache, which it does not need: the next guest's turn succeeds
//! only if balloons get that memory back.

use std::fs::File;
use std::io::{BufWriter, IntoInnerError, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::{note, step};
use plimsoll_machine::oom::OomKills;
use plimsoll_operate::Stage;
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::toucher::Toucher;
use plimsoll_operate::watch::{self, Peaks};
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_units::Bytes;

use crate::age;
use crate::report::Report;

/// How long a guest may take to write or verify its memory: it may have to wait for others to give
/// theirs.
const PHASE_LIMIT: Duration = Duration::from_secs(240);

/// What the demo consists of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Guests.
    pub vms: usize,
    /// Guest-physical memory of each.
    pub size: Bytes,
    /// Machine memory for all of them.
    pub budget: Bytes,
    /// What a guest writes in its turn.
    pub touched: Bytes,
    /// What it keeps afterwards, to be verified at the end.
    pub kept: Bytes,
    /// What it then reads from its disk: page cache, which no guest needs and only the balloon can
    /// get back.
    pub cached: Bytes,
    /// Guests are threads of the VMM, not kernels.
    pub model: bool,
    /// Show the live table.
    pub table: bool,
    /// How long the user had waited when this process started.
    pub waited: Duration,
}

impl Plan {
    /// The demo with guests' kernels, or with models.
    pub fn new(model: bool) -> Self {
        let mib = Bytes::mib;
        // Of 256 MiB a Debian kernel leaves about 190 to programs. A model has no kernel, and no
        // page cache.
        let (touched, cached) = if model { (mib(232), Bytes::ZERO) } else { (mib(160), mib(48)) };
        let (size, budget, kept) = (mib(256), mib(640), mib(16));
        Self { vms: 4, size, budget, touched, kept, cached, model, table: true, waited: Duration::ZERO }
    }
}

/// What the phases counted.
#[derive(Debug, Default)]
struct Counts {
    verified: u64,
    lost_pages: u64,
    guest_oom_kills: u64,
    ready: Duration,
    turns: Vec<Duration>,
}

/// Runs `plan` to its end. With `keep` the guests, their last patterns and the daemon go on, and
/// the returned stage is still open.
pub fn run(plan: &Plan, keep: bool) -> Result<(Report, Stage)> {
    let kills_before = host_oom_kills()?;
    let stage = Stage::open(plan.budget)?;
    let begin = Instant::now();
    let table = plan.table.then(|| show_table(&stage)).transpose()?;
    let result = watch::while_watching(&stage, || phases(plan, keep, &stage));
    if let Some(mut table) = table {
        // It runs until it is ended.
        table.kill().ok();
        table.wait().ok();
    }
    let (counts, peaks) = stage.explained(result)?;
    let host_kills = host_oom_kills()?.saturating_sub(kills_before);
    let report = report(plan, &counts, &peaks, host_kills, begin.elapsed());
    peaks.errors.iter().for_each(|error| note(error));
    if !report.ok {
        note(&format!("{}: see the summary", stage.account()));
    }
    Ok((report, stage))
}

fn phases(plan: &Plan, keep: bool, stage: &Stage) -> Result<Counts> {
    let mut counts = Counts::default();
    let names: Vec<String> = (1..=plan.vms).map(|n| format!("guest{n}")).collect();
    step(&format!("starting {} guests of {} on a budget of {}", plan.vms, plan.size, plan.budget));
    let disk = (!plan.model).then(|| noise_disk(plan, stage)).transpose()?;
    for (index, name) in names.iter().enumerate() {
        // Debian's two kernels take turns.
        let version = Version::ALL[index % Version::ALL.len()];
        let runs = if plan.model { Runs::Model } else { Runs::Toucher(version) };
        let mut definition = Definition::new(name, plan.size, runs);
        definition.read_only_disks.extend(disk.clone());
        // A model has no page cache to sit on: it keeps what it has freed instead.
        definition.reports_free_pages = !plan.model;
        // A mistake of ours is better found here than in the daemon's refusal.
        VmDefinition::from_toml(&definition.text()?, stage.path())?;
        stage.run(&definition)?;
        if index == 0 {
            counts.ready = plan.waited + age::of_this_process()?;
        }
    }
    let mut guests = names.iter().map(|name| stage.toucher(name)).collect::<Result<Vec<Toucher>>>()?;
    for (name, guest) in names.iter().zip(&mut guests) {
        step(&format!("{name} writes {} and verifies it", plan.touched));
        let begin = Instant::now();
        turn(plan, guest, &mut counts).with_context(|| format!("{name}'s turn"))?;
        let took = begin.elapsed();
        note(&format!("{:.1} s", took.as_secs_f64()));
        counts.turns.push(took);
    }
    step("all guests verify what they kept");
    for guest in &mut guests {
        guest.send("verify")?;
    }
    for guest in &mut guests {
        let answer = guest.receive("verify", PHASE_LIMIT)?;
        counts.verified += answer.number("bytes")?;
        counts.lost_pages += answer.number("mismatched")?;
        counts.guest_oom_kills += guest.ask("meminfo", PHASE_LIMIT)?.number("oom_kills")?;
    }
    if !keep {
        step("the guests shut down");
        for (name, mut guest) in names.iter().zip(guests) {
            guest.send("poweroff")?;
            stage.wait_off(name, PHASE_LIMIT)?;
        }
    }
    Ok(counts)
}

/// One guest's turn: it writes nearly its whole memory, verifies it, and keeps a little.
fn turn(plan: &Plan, guest: &mut Toucher, counts: &mut Counts) -> Result<()> {
    // Seeds differ, so that a page of the first never verifies as one of the second.
    let (all, kept) = (1, 2);
    guest.ask(&format!("touch {} {all}", plan.touched.0), PHASE_LIMIT)?;
    let (bytes, mismatched) = guest.verify(PHASE_LIMIT)?;
    counts.verified += bytes;
    counts.lost_pages += mismatched;
    guest.ask("free", PHASE_LIMIT)?;
    guest.ask(&format!("touch {} {kept}", plan.kept.0), PHASE_LIMIT)?;
    if !plan.model {
        guest.ask(&format!("cache /dev/vda {}", plan.cached.0), PHASE_LIMIT)?;
    }
    Ok(())
}

/// A disk for all guests to read. No page of it is like another: equal pages in one guest would be
/// shared, and no balloon would be needed.
fn noise_disk(plan: &Plan, stage: &Stage) -> Result<PathBuf> {
    let path = stage.path().join("noise.raw");
    let mut file = BufWriter::new(File::create(&path)?);
    for number in 0..plan.cached.0 / 8 {
        // The finishing steps of SplitMix64.
        let word = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        file.write_all(&(word ^ (word >> 31)).to_le_bytes())?;
    }
    file.into_inner().map_err(IntoInnerError::into_error)?;
    Ok(path)
}

fn report(plan: &Plan, counts: &Counts, peaks: &Peaks, host_kills: u64, took: Duration) -> Report {
    let size_bytes: Bytes = std::iter::repeat_n(plan.size, plan.vms).sum();
    let oom_kills = counts.guest_oom_kills + host_kills;
    let all = (plan.touched.0 + plan.kept.0) * plan.vms as u64;
    let ok = counts.lost_pages == 0
        && oom_kills == 0
        && counts.verified >= all
        && peaks.ledger <= plan.budget
        && peaks.kernel <= plan.budget
        // A watcher that saw nothing has watched nothing.
        && peaks.kernel > Bytes::ZERO
        // Some guest held memory that another needed, or the demo has shown nothing.
        && peaks.ballooned > Bytes::ZERO
        && peaks.errors.is_empty();
    Report {
        vms: plan.vms,
        size_bytes,
        budget_bytes: plan.budget,
        peak_ledger_bytes: peaks.ledger,
        peak_kernel_bytes: peaks.kernel,
        ballooned_peak_bytes: peaks.ballooned,
        verified_bytes: Bytes(counts.verified),
        lost_writes: counts.lost_pages,
        oom_kills,
        ready_seconds: tenths(counts.ready),
        turns_seconds: counts.turns.iter().copied().map(tenths).collect(),
        seconds: tenths(took),
        ok,
    }
}

/// Seconds, to a tenth.
fn tenths(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

/// The live table, on our standard output until it is killed.
fn show_table(stage: &Stage) -> Result<Child> {
    // Without a terminal it prints one block after the other; a terminal would be taken for itself
    // alone.
    let mut command = stage.command(&["top", "--interval", "3s"])?;
    let mut child = command.stdout(Stdio::piped()).spawn().context("starting plimsoll top")?;
    let mut lines = child.stdout.take().context("plimsoll top has no output")?;
    std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::stdout()));
    Ok(child)
}

/// How often the host's kernel has killed a process for memory since it booted.
fn host_oom_kills() -> Result<u64> {
    OomKills::of_machine(Path::new("/proc")).count().context("/proc/vmstat counts no oom_kill")
}
