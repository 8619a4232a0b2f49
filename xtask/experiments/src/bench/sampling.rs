//! What sampling costs the guest, and how far its figures are from the truth.

use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use plimsoll_lab::workspace::step;
use plimsoll_pmap::Sampler;
use plimsoll_sys::clock::thread_processor_time;
use plimsoll_units::{CHUNK_PAGES, Pages};

use super::goal::Goal;
use super::memory::guest::Guest;
use super::memory::processor::{self, Place};
use super::report::{Figure, Report};
use crate::stats::interval;

/// What sampling may cost a thread that touches all memory, in percent.
const MOST_COST: f64 = 0.1;
/// Guest memory: 256 MiB.
const CHUNKS: u64 = 128;
/// Samples a period, as by default. Some are of the same chunk, and count once.
const SAMPLES: u32 = 100;
/// Samples a second by default: 100 in 15 s.
const DEFAULT_RATE: f64 = 100.0 / 15.0;
/// A period here, 300 times as short: at the default rate a turn would have no sample in it.
const PERIOD: Duration = Duration::from_millis(50);
/// How long memory is touched with and without sampling, by turns: two periods. Longer, and the
/// machine is another one from turn to turn.
const TURN: Duration = Duration::from_millis(100);
/// Turns of both kinds in a run.
const PAIRS: usize = 12;
/// Times that every chunk is touched to learn what one touch costs.
const PASSES: usize = 20;
/// Working sets, in percent of memory.
const WORKING_SETS: [u64; 5] = [10, 25, 50, 75, 90];

const NOT_SHOWN: &str = "The costs are those of one sample, at the default 100 in 15 s: measured are some 200 times as many \
    a second, and the difference is divided by how many there were. A sample is one fault, how many there are, so it adds up; \
    but a processor that has been idle for seconds wakes more slowly than one that was for 50 ms. A busy machine shows: whoever \
    touches what is aside waits for a thread to answer. The guest is a thread of the host: a vCPU's exits are not in it. Errors \
    are those of one period's sample, before the averages smooth them, and of working sets of whole 2 MiB chunks: a chunk of \
    which one page is used counts as used.";

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench sampling\n  cargo xtask bench sampling --runs 51 --json"
)]
pub struct SamplingArgs {
    /// Measured runs, after one to warm up.
    #[arg(long, value_name = "N", default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// As its last line, print the figures as one JSON object.
    #[arg(long)]
    json: bool,
}

/// What was measured, run by run.
#[derive(Debug, Default)]
struct Measured {
    /// How much longer the toucher takes for a chunk while memory is sampled, in percent, pair by
    /// pair.
    slower: Vec<f64>,
    /// How much more processor time, likewise.
    processor: Vec<f64>,
    /// Samples a second meanwhile.
    rates: Vec<f64>,
    /// Microseconds that the touch of a chunk that is aside takes longer.
    touch: Vec<f64>,
    /// Microseconds that a sample of other memory takes from the toucher.
    flush: Vec<f64>,
    /// Both together at the default rate, in percent.
    counted: Vec<f64>,
    /// Microseconds of the sampler's thread for a sample, there and back.
    each: Vec<f64>,
    /// Percent of memory, for each working set.
    errors: [Vec<f64>; WORKING_SETS.len()],
}

/// Memory that is touched, and memory of the same process that is only sampled.
struct Bench {
    guest: Guest,
    other: Guest,
}

/// What became of a turn.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// Microseconds for a chunk's pages: of time, and of the toucher's processor time.
    time: f64,
    processor: f64,
    /// Samples in a second.
    rate: f64,
    /// Microseconds of the sampler for each.
    each: f64,
}

/// Measures and reports; fails where the goal is missed.
pub(crate) fn run(arguments: &SamplingArgs) -> Result<ExitCode> {
    processor::stay(Place::Here);
    step(&format!("touching {} MiB with and without sampling, by turns", CHUNKS * 2));
    let new = || Guest::new(CHUNKS, Pages::ZERO, None, Place::Elsewhere);
    let bench = Bench { guest: new()?, other: new()? };
    touch(&bench.other, CHUNKS)?;
    Measured::default().measure(&bench)?;
    let mut measured = Measured::default();
    (0..arguments.runs).try_for_each(|_| measured.measure(&bench))?;
    measured.report()?.print(arguments.json)
}

impl Measured {
    fn measure(&mut self, bench: &Bench) -> Result<()> {
        for _ in 0..PAIRS {
            let (without, with) = bench.pair(&bench.guest, PERIOD)?;
            ensure!(with.rate > 0.0, "nothing could be sampled");
            self.slower.push((with.time / without.time - 1.0) * 100.0);
            self.processor.push((with.processor / without.processor - 1.0) * 100.0);
            self.rates.push(with.rate);
            self.each.push(with.each);
        }
        // Over and over, for otherwise nobody would notice. Where two processors are there that is.
        let (without, with) = bench.pair(&bench.other, Duration::ZERO)?;
        let flush = (with.time / without.time - 1.0) * 1e6 / with.rate;
        let touch = touch_of_a_sample(&bench.guest)?;
        self.touch.push(touch);
        self.flush.push(flush);
        self.counted.push((touch + flush) / 1e6 * DEFAULT_RATE * 100.0);
        for (errors, percent) in self.errors.iter_mut().zip(WORKING_SETS) {
            errors.push(error(&bench.guest, percent)?);
        }
        Ok(())
    }

    fn report(&self) -> Result<Report> {
        let counted = Figure::new("counted: samples times what each costs the toucher", "%", &self.counted)?;
        let mut goals = vec![Goal::at_most("cost counted, %", counted.spread.median, MOST_COST)];
        let mut figures = vec![
            counted,
            Figure::new("  the touch of a chunk that is aside", "us", &self.touch)?,
            Figure::new("  a sample's interruptions of another processor", "us", &self.flush)?,
        ];
        let measured = [("of its speed", &self.slower), ("of its processor time", &self.processor)];
        let rate = mean(&self.rates);
        figures.push(Figure::new("samples a second while that was measured", "", &self.rates)?);
        for (name, pairs) in measured {
            // Of all pairs together: where a busy machine let few samples be taken, a pair by
            // itself says little.
            let pairs: Vec<f64> = pairs.iter().map(|percent| percent * DEFAULT_RATE / rate).collect();
            let [low, middle, high] = interval(&pairs);
            let name = format!("measured: {name}, with its 95 % interval");
            figures.push(Figure::new(&name, "%", &[low, middle, high])?);
            figures.push(Figure::new("  pair by pair", "%", &pairs)?);
            goals.push(Goal::at_most(&format!("cost {name}: its upper end, %"), high, MOST_COST));
        }
        figures.push(Figure::new("cost to the sampler's own thread, a sample", "us", &self.each)?);
        for (errors, percent) in self.errors.iter().zip(WORKING_SETS) {
            let name = format!("error at a working set of {percent} % of memory");
            figures.push(Figure::new(name, "% of memory", errors)?);
        }
        let pairs = format!("{} pairs of turns of {} ms.", self.slower.len(), TURN.as_millis());
        Ok(Report { runs: self.counted.len(), figures, goals, remarks: vec![pairs], not_shown: NOT_SHOWN })
    }
}

impl Bench {
    /// A turn without sampling and one with it, in random order. `sampled` is sampled.
    fn pair(&self, sampled: &Guest, period: Duration) -> Result<(Turn, Turn)> {
        if fastrand::bool() {
            let without = self.turn(None, period)?;
            Ok((without, self.turn(Some(sampled), period)?))
        } else {
            let with = self.turn(Some(sampled), period)?;
            Ok((self.turn(None, period)?, with))
        }
    }

    /// Touches all pages over and over.
    fn turn(&self, sampled: Option<&Guest>, period: Duration) -> Result<Turn> {
        let (over, ready) = (AtomicBool::new(false), Barrier::new(2));
        let (touched, sampling) = std::thread::scope(|scope| {
            let sampling = scope.spawn(|| {
                processor::stay(Place::Elsewhere);
                ready.wait();
                sample(sampled, period, &over)
            });
            ready.wait();
            let touched = touch_for_a_turn(&self.guest);
            over.store(true, Ordering::Relaxed);
            (touched, sampling.join().expect("it does not panic"))
        });
        let Touched { chunks, time, processor } = touched?;
        let Sampling { samples, busy } = sampling;
        Ok(Turn {
            time: time * 1e6 / chunks,
            processor: processor * 1e6 / chunks,
            rate: samples / time,
            each: busy * 1e6 / samples.max(1.0),
        })
    }
}

/// Chunks that were touched, and seconds.
struct Touched {
    chunks: f64,
    time: f64,
    processor: f64,
}

fn touch_for_a_turn(guest: &Guest) -> Result<Touched> {
    let (start, before) = (Instant::now(), processor_time());
    let mut chunks = 0;
    while start.elapsed() < TURN {
        touch_chunk(guest, chunks % CHUNKS)?;
        chunks += 1;
    }
    let (time, processor) = (start.elapsed().as_secs_f64(), processor_time() - before);
    Ok(Touched { chunks: f64::from(u32::try_from(chunks)?), time, processor })
}

/// Seconds that this thread has run.
fn processor_time() -> f64 {
    thread_processor_time().as_secs_f64()
}

/// Samples that were taken, and the seconds that took.
struct Sampling {
    samples: f64,
    busy: f64,
}

/// Samples until it is over; or wakes as often and does nothing.
#[expect(clippy::cast_precision_loss, reason = "a count")]
fn sample(sampled: Option<&Guest>, period: Duration, over: &AtomicBool) -> Sampling {
    let mut sampler = sampled.map(|guest| Sampler::new(guest.pmap.clone(), SAMPLES));
    let (mut busy, mut samples) = (Duration::ZERO, 0);
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        if let Some(sampler) = &mut sampler {
            sampler.begin();
            samples += sampler.seen().chunks.sampled;
        }
        busy += start.elapsed();
        std::thread::sleep(period);
        let start = Instant::now();
        sampler.iter_mut().for_each(Sampler::end);
        busy += start.elapsed();
    }
    Sampling { samples: samples as f64, busy: busy.as_secs_f64() }
}

/// Microseconds by which the pages of a chunk that is aside take longer to touch than those of one
/// that is not.
fn touch_of_a_sample(guest: &Guest) -> Result<f64> {
    let mut sampler = Sampler::new(guest.pmap.clone(), SAMPLES);
    let (mut aside, mut there) = (Vec::new(), Vec::new());
    for _ in 0..PASSES {
        sampler.begin();
        for chunk in 0..CHUNKS {
            let before = sampler.seen().chunks.touched;
            let start = Instant::now();
            touch_chunk(guest, chunk)?;
            let time = start.elapsed().as_secs_f64() * 1e6;
            let was_aside = sampler.seen().chunks.touched > before;
            if was_aside { &mut aside } else { &mut there }.push(time);
        }
    }
    ensure!(!aside.is_empty() && !there.is_empty(), "all chunks or none were sampled");
    Ok(mean(&aside) - mean(&there))
}

fn touch(guest: &Guest, chunks: u64) -> Result<()> {
    (0..chunks).try_for_each(|chunk| touch_chunk(guest, chunk))
}

fn touch_chunk(guest: &Guest, chunk: u64) -> Result<()> {
    (chunk * CHUNK_PAGES..(chunk + 1) * CHUNK_PAGES).try_for_each(|ppn| guest.write(ppn, ppn))
}

/// How far one period's sample is from the truth, in percent of memory, where `percent` of it is
/// touched.
#[expect(clippy::cast_precision_loss, reason = "percentages")]
fn error(guest: &Guest, percent: u64) -> Result<f64> {
    let chunks = CHUNKS * percent / 100;
    let mut sampler = Sampler::new(guest.pmap.clone(), SAMPLES);
    sampler.begin();
    touch(guest, chunks)?;
    let seen = sampler.seen().chunks;
    ensure!(seen.sampled > 0, "nothing could be sampled: {seen:?}");
    let (found, truth) = (seen.touched as f64 / seen.sampled as f64, chunks as f64 / CHUNKS as f64);
    Ok((found - truth).abs() * 100.0)
}

#[expect(clippy::cast_precision_loss, reason = "a count")]
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
