//! How long a touch of a swapped page takes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use plimsoll_lab::cache;
use plimsoll_lab::workspace::step;
use plimsoll_pmap::SwapSpace;
use plimsoll_units::{PAGE_SIZE, Pages};
use rustix::fs::{Mode, OFlags};

use super::goal::Goal;
use super::memory::bare::Bare;
use super::memory::buffer::{PageBuffer, Random};
use super::memory::guest::Guest;
use super::memory::plain::Plain;
use super::memory::processor::{self, Place};
use super::memory::swapon::KernelSwap;
use super::report::{Figure, Report, ratios};
use crate::stats::Spread;

/// What our bookkeeping and our queue may add to the disk and to a page fault that another thread
/// serves.
const MOST_RATIO: f64 = 1.2;

/// Memory of the guest: 64 MiB.
const CHUNKS: u64 = 32;
const PAGES: u64 = CHUNKS * Pages::CHUNK.0;
/// Slots of our swap. Where they were no more than the pages, resident pages would have to give up
/// their copies, be written to other slots, and in time have no neighbours there.
const SLOTS: u64 = PAGES + 1024;
/// One page of this many is touched, so that no page was read ahead with another.
const STRIDE: u64 = 32;
/// Pages that are touched in a row: 8 MiB.
const ROW: u64 = 2048;
/// Pages of it that are timed together: eight of our reads.
const BLOCK: u64 = 64;

/// Rounds of taking that leave next to none of the kernel's pages in its swap cache: one to write,
/// one or two to drop.
const WRITTEN_AND_DROPPED: u32 = 3;

const NOT_SHOWN: &str = "The first read of a page by a thread of this process, one at a time, with the disk idle otherwise: what a \
    vCPU's exit adds, and what a queue of reads gains, is not in the figures. The disk's own cache, and a hypervisor's below it, \
    hold what was written a moment ago: a disk that has to seek hides more of what we add. Pages in a row are read ahead by \
    both.";

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench swap\n  cargo xtask bench swap --directory /mnt/nvme --json"
)]
pub struct SwapArgs {
    /// Measured runs of 512 faults of each kind, by turns, after one to warm up.
    #[arg(long, value_name = "N", default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Where to put the files that are swapped to: a file system on the disk in question that knows
    /// O_DIRECT. The default is the cache.
    #[arg(long, value_name = "PATH")]
    directory: Option<PathBuf>,
    /// Encrypt what we swap out.
    #[arg(long)]
    encrypt: bool,
    /// As its last line, print the figures as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Measures and reports; fails where the goal is missed.
pub(crate) fn run(arguments: &SwapArgs) -> Result<ExitCode> {
    processor::stay(Place::Here);
    let directory = arguments.directory.clone().map_or_else(cache::directory, Ok)?;
    step(&format!("touching swapped pages, on the disk of {}", directory.display()));
    let mut bench = Bench::new(&directory, arguments.encrypt)?;
    bench.measure()?;
    bench.times = Times::default();
    (0..arguments.runs).try_for_each(|_| bench.measure())?;
    bench.report()?.print(arguments.json)
}

/// Microseconds, the median of each run.
#[derive(Debug, Default)]
struct Times {
    ours: Vec<f64>,
    /// A page of those touched one after the other.
    ours_in_a_row: Vec<f64>,
    bare: Vec<f64>,
    read: Vec<f64>,
    kernel: Vec<f64>,
    kernel_in_a_row: Vec<f64>,
}

/// What is timed.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Ours,
    Bare,
    Read,
    Kernel,
}

struct Bench {
    guest: Guest,
    bare: Bare,
    /// What the baseline reads.
    file: File,
    /// Where it reads to.
    page: Box<PageBuffer>,
    kernel: Result<Kernel>,
    random: Random,
    times: Times,
}

/// Memory that the kernel swaps.
struct Kernel {
    memory: Plain,
    /// Dropped after the memory: nothing is left in it then.
    _swap: KernelSwap,
}

impl Bench {
    fn new(directory: &Path, encrypt: bool) -> Result<Self> {
        let file = scratch(directory)?.into();
        let swap = SwapSpace { file, slots: Pages(SLOTS), encrypt };
        let guest = Guest::new(CHUNKS, Pages::ZERO, Some(swap), Place::Elsewhere)?;
        (0..PAGES).try_for_each(|ppn| guest.fill(ppn, &PageBuffer::noise(ppn)))?;
        let file = scratch(directory)?;
        let source = file.try_clone().context("copying a descriptor")?;
        let bare = Bare::new(CHUNKS, Place::Elsewhere, move |offset, page| {
            source.read_exact_at(&mut page.0, offset as u64).context("reading the baseline's file")
        })?;
        let kernel = Kernel::new(directory);
        let page = Box::new(PageBuffer::ZERO);
        Ok(Self { guest, bare, file, page, kernel, random: Random(1), times: Times::default() })
    }

    /// Swaps nearly everything out, and touches pages here and there; then does so again, and
    /// touches pages in a row.
    fn measure(&mut self) -> Result<()> {
        self.page_out()?;
        self.touch_here_and_there()?;
        self.page_out()?;
        self.touch_in_a_row()
    }

    fn page_out(&self) -> Result<()> {
        self.guest.page_out(|stats| stats.swapped.0 >= PAGES * 95 / 100)?;
        self.bare.discard()?;
        self.kernel.as_ref().map_or(Ok(()), Kernel::page_out)
    }

    /// Touches pages of every kind by turns, each time in another order: a processor that has been
    /// idle for longer, and what was done last on the other one, make a round trip longer than it
    /// is.
    fn touch_here_and_there(&mut self) -> Result<()> {
        let first = self.random.next() % STRIDE;
        let mut ppns: Vec<u64> = (first..PAGES).step_by(usize::try_from(STRIDE)?).collect();
        self.random.shuffle(&mut ppns);
        let mut kinds = [Kind::Ours, Kind::Bare, Kind::Read, Kind::Kernel];
        let mut touched: [Vec<Duration>; 4] = Default::default();
        for ppn in ppns {
            self.random.shuffle(&mut kinds);
            for kind in kinds {
                touched[kind as usize].extend(self.touch(kind, ppn)?);
            }
        }
        let times = &mut self.times;
        let of = [&mut times.ours, &mut times.bare, &mut times.read, &mut times.kernel];
        of.into_iter().zip(&touched).for_each(|(times, touched)| times.extend(median(touched)));
        Ok(())
    }

    /// How long a touch of a page took; nothing where the page was not in the swap. Each is
    /// preceded and followed by the same system calls.
    fn touch(&mut self, kind: Kind, ppn: u64) -> Result<Option<Duration>> {
        let offset = usize::try_from(ppn * PAGE_SIZE)?;
        let (swapped_in, major) = (self.guest.pmap.stats().traffic.swapped_in, major_faults()?);
        let (time, word) = match kind {
            Kind::Ours => self.guest.touch(ppn)?,
            Kind::Bare => self.bare.touch(offset)?,
            Kind::Read => {
                let start = Instant::now();
                self.file.read_exact_at(&mut self.page.0, ppn * PAGE_SIZE).context("reading a file")?;
                (start.elapsed(), self.page.first_word())
            }
            Kind::Kernel => match &self.kernel {
                Ok(kernel) => kernel.touch(offset)?,
                Err(_) => return Ok(None),
            },
        };
        ensure!(word == ppn, "page {ppn} came back as page {word}: {kind:?}");
        let waited = major_faults()? > major;
        Ok(match kind {
            Kind::Ours => self.guest.pmap.stats().traffic.swapped_in > swapped_in,
            Kind::Bare | Kind::Read => true,
            Kind::Kernel => waited,
        }
        .then_some(time))
    }

    /// Touches the pages of some chunks from the first to the last.
    fn touch_in_a_row(&mut self) -> Result<()> {
        let first = self.random.next() % (PAGES - ROW);
        let ours = in_a_row(first, |ppn| self.guest.touch(ppn).map(drop))?;
        self.times.ours_in_a_row.extend(ours);
        if let Ok(kernel) = &self.kernel {
            let touch = |ppn| kernel.memory.read(usize::try_from(ppn * PAGE_SIZE)?).map(drop);
            self.times.kernel_in_a_row.extend(in_a_row(first, touch)?);
        }
        Ok(())
    }

    fn report(&self) -> Result<Report> {
        let times = &self.times;
        let ratio = Figure::new("ours to bare", "times", &ratios(&times.ours, &times.bare))?;
        let goals = vec![Goal::at_most(
            "a fault on a swapped page, times a bare read with a bare round trip",
            ratio.spread.median,
            MOST_RATIO,
        )];
        let mut figures = vec![
            Figure::new("ours: a swapped page", "us", &times.ours)?,
            Figure::new("bare: O_DIRECT read by the thread that takes the fault", "us", &times.bare)?,
            Figure::new("an O_DIRECT read of 4 KiB, without a fault", "us", &times.read)?,
            ratio,
            Figure::new("ours: pages in a row, each", "us", &times.ours_in_a_row)?,
        ];
        let remark = match &self.kernel {
            Ok(_) => {
                figures.push(Figure::new("the kernel's own swapping", "us", &times.kernel)?);
                let row = &times.kernel_in_a_row;
                figures.push(Figure::new("the kernel's own: pages in a row, each", "us", row)?);
                figures.push(Figure::new(
                    "ours to the kernel's",
                    "times",
                    &ratios(&times.ours, &times.kernel),
                )?);
                let cluster = fs::read_to_string("/proc/sys/vm/page-cluster").unwrap_or_default();
                format!("The kernel reads around a page as vm.page-cluster = {} says.", cluster.trim())
            }
            Err(error) => format!("Not measured: the kernel's own swapping. {error:#}."),
        };
        Ok(Report { runs: times.ours.len(), figures, goals, remarks: vec![remark], not_shown: NOT_SHOWN })
    }
}

impl Kernel {
    fn new(directory: &Path) -> Result<Self> {
        // More than twice what is needed: in a file that is half full the kernel frees a slot as
        // soon as its page is back.
        let pages = u32::try_from(PAGES * 4)?;
        let swap = KernelSwap::new(directory, pages)?;
        let memory = Plain::new(CHUNKS, false)?;
        for ppn in 0..PAGES {
            memory.fill(usize::try_from(ppn * PAGE_SIZE)?, &PageBuffer::noise(ppn))?;
        }
        Ok(Self { memory, _swap: swap })
    }

    /// Has the kernel take all pages. What it writes stays in its swap cache until memory is short,
    /// so pages are mapped again, and given up once more now that they are clean.
    fn page_out(&self) -> Result<()> {
        for _ in 0..WRITTEN_AND_DROPPED {
            for ppn in 0..PAGES {
                self.memory.read(usize::try_from(ppn * PAGE_SIZE)?)?;
            }
            self.memory.page_out()?;
        }
        Ok(())
    }

    /// How long a touch of the page at `offset` took, and its first word.
    fn touch(&self, offset: usize) -> Result<(Duration, u64)> {
        let start = Instant::now();
        let word = self.memory.read(offset)?;
        Ok((start.elapsed(), word))
    }
}

/// Faults of this thread that waited for a disk.
fn major_faults() -> Result<u64> {
    let path = "/proc/thread-self/stat";
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    // The name, in parentheses, may hold anything. It is the second field; the count is the
    // twelfth.
    let after = text.rsplit(") ").next().unwrap_or_default();
    let count = after.split(' ').nth(9).and_then(|count| count.parse().ok());
    count.with_context(|| format!("no count of major faults in {path}"))
}

/// A file without a name for all slots, written from end to end, that goes past the page cache.
/// Page `n` is the guest's page `n`.
fn scratch(directory: &Path) -> Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    let opened = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR);
    let file: File = opened
        .with_context(|| {
            format!(
                "making a file in {}: its file system must know O_TMPFILE and O_DIRECT",
                directory.display()
            )
        })?
        .into();
    for ppn in 0..SLOTS {
        let page = Box::new(PageBuffer::noise(ppn));
        file.write_all_at(&page.0, ppn * PAGE_SIZE).context("writing a file to swap to")?;
    }
    file.sync_all().context("writing a file to swap to")?;
    Ok(file)
}

/// What a page of a row took, in microseconds: the mean of a block, and of those the median,
/// because one fault that waits for its turn on a busy processor takes as long as many that do not.
fn in_a_row(first: u64, touch: impl Fn(u64) -> Result<()>) -> Result<Option<f64>> {
    let mut blocks = Vec::new();
    for block in (first..first + ROW).step_by(usize::try_from(BLOCK)?) {
        let start = Instant::now();
        (block..block + BLOCK).try_for_each(&touch)?;
        blocks.push(start.elapsed() / u32::try_from(BLOCK)?);
    }
    Ok(median(&blocks))
}

/// The median in microseconds.
fn median(times: &[Duration]) -> Option<f64> {
    Spread::of(times.iter().map(|time| time.as_secs_f64() * 1e6), 3).map(|spread| spread.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_faults_are_counted_from_the_kernels_line() {
        assert!(major_faults().unwrap() < 1 << 40);
    }
}
