//! How fast and how large the index of shared pages is.

use std::collections::HashMap;
use std::fs;
use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use plimsoll_lab::workspace::step;
use plimsoll_sharing::{Domain, Found, MemberId};
use plimsoll_sys::clock::thread_processor_time;
use plimsoll_units::{PAGE_SIZE, PageDigest, PageNo, Pages};

use super::goal::Goal;
use super::memory::processor::{self, Place};
use super::report::{Figure, Report};

/// What bookkeeping may take for each page that it knows.
const MOST_BYTES: f64 = 20.0;
/// Million look-ups a second, of one core.
const LEAST_LOOKUPS: f64 = 10.0;

/// Pages of a message.
const BATCH: u32 = 512;
/// Look-ups of each kind in a run.
const SAMPLE: u32 = 1 << 21;
/// Frames of the domain that has nothing else: 256 MiB. With fewer, memory that does not grow with
/// them would count.
const FRAMES: u32 = 1 << 16;

/// VMs that have all entries, as a power of two.
const OWNERS: u32 = 4;
/// A member with the same content and no hints, and one whose pages change all the time. Owners are
/// numbered from 0.
const OTHER: MemberId = MemberId(1000);
const CHANGING: MemberId = MemberId(1001);

const NOT_SHOWN: &str = "Times are processor time of one thread. Messages between daemon and VMMs, and making frames. Content is looked up in random order, as a scan does; \
    page numbers are random too. The baseline is std's HashMap from half a digest to its page, with that half taken as its hash, one look-up at a time: \
    it keeps no account of who holds what, and cannot tell which of its entries a page is when that changes. Both have all of one core's caches.";

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask bench index\n  cargo xtask bench index --runs 21 --json")]
pub struct IndexArgs {
    /// Measured runs, by turns with the baseline, after one to warm up.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Entries, as a power of two.
    #[arg(long, value_name = "POWER", default_value_t = 24, value_parser = clap::value_parser!(u32).range(16..=28))]
    power: u32,
    /// As its last line, print the figures as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Measures and reports; fails where a goal is missed.
pub(crate) fn run(arguments: &IndexArgs) -> Result<ExitCode> {
    processor::stay(Place::Here);
    let mut content = Content { power: arguments.power, drawn: 0, changed: 0 };
    step(&format!("filling an index, and a HashMap, with {} entries", content.entries()));
    let (mut ours, filled) = fill_ours(&content)?;
    let (mut map, map_filled) = fill_map(&content)?;
    step("looking up, by turns");
    let mut rates = Rates::default();
    measure(&mut ours, &mut map, &mut content, &mut Rates::default())?;
    for _ in 0..arguments.runs {
        measure(&mut ours, &mut map, &mut content, &mut rates)?;
    }
    drop((ours, map));
    report(&rates, &filled, &map_filled, bytes_of_lone_frames()?)?.print(arguments.json)
}

/// Which digests there are, and which ones are next.
struct Content {
    power: u32,
    drawn: u32,
    changed: u64,
}

impl Content {
    fn entries(&self) -> u32 {
        1 << self.power
    }

    /// Pages of an owner.
    fn owned(&self) -> u32 {
        self.entries() >> OWNERS
    }

    /// The digest of an entry: as good as random, and no two are alike.
    fn digest(entry: u32) -> PageDigest {
        digest(u64::from(entry) + 1)
    }

    /// Whose it is, and in which of its pages.
    fn place(&self, entry: u32) -> (MemberId, PageNo) {
        let page = entry.wrapping_mul(0x9e37_79b1) & (self.owned() - 1);
        (MemberId(entry >> (self.power - OWNERS)), PageNo(page))
    }

    /// A message about random entries of a random owner.
    fn draw(&mut self, batch: &mut Vec<(PageNo, PageDigest)>) -> MemberId {
        batch.clear();
        let owner = self.random() & !(self.owned() - 1);
        for _ in 0..BATCH {
            let entry = owner | self.random() & (self.owned() - 1);
            batch.push((self.place(entry).1, Self::digest(entry)));
        }
        self.place(owner).0
    }

    /// A message about pages with new content.
    fn change(&mut self, batch: &mut Vec<(PageNo, PageDigest)>) {
        batch.clear();
        for page in 0..BATCH {
            self.changed += 1;
            batch.push((PageNo(page), digest((1 << 40) + self.changed)));
        }
    }

    fn random(&mut self) -> u32 {
        self.drawn = self.drawn.wrapping_add(1);
        u32::try_from(scatter((1 << 50) + u64::from(self.drawn)) >> 32).unwrap_or(0) & (self.entries() - 1)
    }
}

/// The digest with this number. No two have the same half.
fn digest(number: u64) -> PageDigest {
    let half = scatter(number);
    PageDigest(u128::from(scatter(half)) << 64 | u128::from(half))
}

/// What the baseline knows of a digest.
#[expect(clippy::cast_possible_truncation, reason = "half of it")]
fn half(digest: PageDigest) -> u64 {
    digest.0 as u64
}

/// SplitMix64's last steps. They can be undone, so nothing comes out twice.
fn scatter(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// What filling showed.
#[derive(Debug, Default)]
struct Filled {
    /// Microseconds that each message took.
    messages: Vec<f64>,
    /// Bytes a page, at the end, and at worst since a quarter was there.
    bytes: f64,
    most_bytes: f64,
    /// At the end, as the kernel counts this process.
    resident: f64,
}

impl Filled {
    /// Fills something, in messages of which `add` takes the first entry and as many as [`BATCH`],
    /// and says how many bytes it has.
    fn fill(
        content: &Content,
        mut add: impl FnMut(&[(PageNo, PageDigest)], u32) -> Result<u64>,
    ) -> Result<Self> {
        let mut filled = Self::default();
        let before = resident()?;
        let mut batch = Vec::new();
        for first in (0..content.entries()).step_by(BATCH as usize) {
            batch.clear();
            batch
                .extend((first..first + BATCH).map(|entry| (content.place(entry).1, Content::digest(entry))));
            let mut time = Duration::ZERO;
            let bytes = timed(&mut time, || add(&batch, first))?;
            filled.messages.push(micros(time));
            filled.bytes = bytes as f64 / f64::from(first + BATCH);
            // A VM's pages take their four bytes whether they are known or not; the first VMs to
            // come are many in few.
            if first >= content.entries() / 4 {
                filled.most_bytes = filled.most_bytes.max(filled.bytes);
            }
        }
        filled.resident = (resident()? - before) / f64::from(content.entries());
        Ok(filled)
    }

    fn nanoseconds_each(&self) -> f64 {
        self.messages.iter().sum::<f64>() * 1e3 / self.messages.len() as f64 / f64::from(BATCH)
    }

    fn slowest(&self) -> f64 {
        self.messages.iter().copied().fold(0.0, f64::max)
    }
}

fn fill_ours(content: &Content) -> Result<(Domain, Filled)> {
    let mut domain = Domain::new(Pages(u64::from(FRAMES))).context("making a domain")?;
    let filled = Filled::fill(content, |batch, first| {
        let owner = content.place(first).0;
        if domain.member(owner).is_none() {
            domain.join(owner, Pages(content.owned().into()))?;
        }
        black_box(domain.look_up(owner, batch));
        Ok(domain.stats().index.0)
    })?;
    domain.join(OTHER, Pages(content.owned().into()))?;
    domain.join(CHANGING, Pages(BATCH.into()))?;
    Ok((domain, filled))
}

/// What hashes by itself.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0 << 8 | u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type Map = HashMap<u64, u32, BuildHasherDefault<AsItIs>>;

fn fill_map(content: &Content) -> Result<(Map, Filled)> {
    let mut map = Map::default();
    let filled = Filled::fill(content, |batch, first| {
        for ((_, digest), entry) in batch.iter().zip(first..) {
            map.insert(half(*digest), entry);
        }
        // Seven eighths of its slots can be used; each has the entry and a byte.
        Ok(map.capacity() as u64 / 7 * 8 * 17)
    })?;
    Ok((map, filled))
}

/// Million look-ups a second, of each run.
#[derive(Debug, Default)]
struct Rates {
    /// Of pages that have not changed since they became hints.
    unchanged: Vec<f64>,
    /// Of pages whose content another VM has.
    wanted: Vec<f64>,
    /// Of pages whose content changed to new content: an entry goes, another comes.
    changed: Vec<f64>,
    map_found: Vec<f64>,
    map_changed: Vec<f64>,
}

/// Measures each once, in turns of a message.
fn measure(domain: &mut Domain, map: &mut Map, content: &mut Content, rates: &mut Rates) -> Result<()> {
    let mut times = [Duration::ZERO; 5];
    let mut batch = Vec::new();
    let mut before = Vec::new();
    for _ in 0..SAMPLE / BATCH {
        let owner = content.draw(&mut batch);
        let found = timed(&mut times[0], || domain.look_up(owner, &batch));
        // Two digests in 2^40 are taken for one: seldom enough not to matter.
        let new = found.iter().filter(|found| **found == Found::New).count();
        ensure!(new + 2 >= found.len(), "an unchanged page is not known: {found:?}");

        content.draw(&mut batch);
        let found = timed(&mut times[1], || domain.look_up(OTHER, &batch));
        ensure!(found.iter().all(|found| *found == Found::Wanted), "an entry is missing: {found:?}");

        content.draw(&mut batch);
        let sum = timed(&mut times[2], || {
            batch.iter().map(|(_, digest)| u64::from(map[&half(*digest)])).sum::<u64>()
        });
        black_box(sum);

        content.change(&mut batch);
        let found = timed(&mut times[3], || domain.look_up(CHANGING, &batch));
        black_box(found);
        timed(&mut times[4], || {
            for (page, digest) in &batch {
                map.insert(half(*digest), page.0);
            }
            for (_, digest) in &before {
                map.remove(&half(*digest));
            }
        });
        before.clone_from(&batch);
    }
    for (_, digest) in &before {
        map.remove(&half(*digest));
    }
    let rate = |time: Duration| f64::from(SAMPLE) / 1e6 / time.as_secs_f64();
    rates.unchanged.push(rate(times[0]));
    rates.wanted.push(rate(times[1]));
    rates.map_found.push(rate(times[2]));
    rates.changed.push(rate(times[3]));
    rates.map_changed.push(rate(times[4]));
    Ok(())
}

/// Adds the processor time that this thread takes for `work`: what else runs on the machine costs
/// only caches then.
fn timed<T>(time: &mut Duration, work: impl FnOnce() -> T) -> T {
    let started = thread_processor_time();
    let result = work();
    *time += thread_processor_time().saturating_sub(started);
    result
}

/// Bytes for each page where every page has a frame for itself: the dearest there is.
fn bytes_of_lone_frames() -> Result<f64> {
    let mut domain = Domain::new(Pages(FRAMES.into())).context("making a domain")?;
    let [first, second] = [MemberId(1), MemberId(2)];
    [first, second].into_iter().try_for_each(|member| domain.join(member, Pages(FRAMES.into())))?;
    let key = domain.digest_key();
    let content = |number: u32| {
        let mut page = [0; 4096];
        page[..4].copy_from_slice(&number.to_ne_bytes());
        page
    };
    for number in 0..FRAMES {
        let pages = [(PageNo(number), key.digest(&content(number)))];
        domain.look_up(first, &pages);
        let offered = domain.offer(second, &pages, |_, copy| *copy = content(number));
        ensure!(offered.frames[0].is_some(), "no frame was made: {offered:?}");
    }
    domain.leave(first);
    while domain.tidy().more {}
    let stats = domain.stats();
    ensure!(stats.references == stats.frames && stats.frames.0 >= u64::from(FRAMES) - 2, "{stats:?}");
    Ok(stats.index.0 as f64 / stats.frames.0 as f64)
}

/// Bytes of this process that are in memory.
fn resident() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/statm").context("reading the process's size")?;
    let pages = text.split(' ').nth(1).context("the process's size has another form")?;
    Ok(pages.parse::<f64>()? * PAGE_SIZE as f64)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn report(rates: &Rates, ours: &Filled, map: &Filled, lone_frames: f64) -> Result<Report> {
    let once = |name: &str, unit, value: f64| Figure::new(name, unit, &[value]);
    let figures = vec![
        Figure::new("look-ups, unchanged pages", "million/s", &rates.unchanged)?,
        Figure::new("look-ups, content of another VM", "million/s", &rates.wanted)?,
        Figure::new("look-ups, HashMap", "million/s", &rates.map_found)?,
        Figure::new("look-ups, changed pages", "million/s", &rates.changed)?,
        Figure::new("an entry replaced, HashMap", "million/s", &rates.map_changed)?,
        once("bytes a page", "bytes", ours.bytes)?,
        once("bytes a page, at worst while growing", "bytes", ours.most_bytes)?,
        once("bytes a page, as the kernel counts", "bytes", ours.resident)?,
        once("bytes a page, each with a frame of its own", "bytes", lone_frames)?,
        once("bytes an entry, HashMap", "bytes", map.bytes)?,
        once("bytes an entry, HashMap, at worst while growing", "bytes", map.most_bytes)?,
        once("filling", "ns a page", ours.nanoseconds_each())?,
        once("filling, HashMap", "ns an entry", map.nanoseconds_each())?,
        Figure::new("a message of 512 while filling", "us", &ours.messages)?,
        Figure::new("512 entries of HashMap while filling", "us", &map.messages)?,
    ];
    let slowest = rates.unchanged.iter().zip(&rates.wanted).map(|(a, b)| a.min(*b));
    let slowest = Figure::new("the slower", "million/s", &slowest.collect::<Vec<_>>())?.spread.median;
    let bytes = [ours.bytes, ours.most_bytes, ours.resident, lone_frames].into_iter().fold(0.0, f64::max);
    let goals = vec![
        Goal::at_least("million look-ups a second", slowest, LEAST_LOOKUPS),
        Goal::at_most("bytes a page indexed, the most of the four figures", bytes, MOST_BYTES),
    ];
    let remarks = vec![format!(
        "The slowest message while growing took {:.0} us, and {:.0} us with HashMap, which moves all its entries at once.",
        ours.slowest(),
        map.slowest()
    )];
    Ok(Report { runs: rates.unchanged.len(), figures, goals, remarks, not_shown: NOT_SHOWN })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_index_is_measured_as_a_large_one() {
        let mut content = Content { power: 16, drawn: 0, changed: 0 };
        let (mut domain, ours) = fill_ours(&content).unwrap();
        let (mut map, others) = fill_map(&content).unwrap();
        assert_eq!((domain.stats().hints, map.len()), (Pages(1 << 16), 1 << 16));
        let mut rates = Rates::default();
        measure(&mut domain, &mut map, &mut content, &mut rates).unwrap();
        assert_eq!(map.len(), 1 << 16);
        let report = report(&rates, &ours, &others, bytes_of_lone_frames().unwrap()).unwrap();
        assert_eq!((report.runs, report.goals.len()), (1, 2));
    }
}
