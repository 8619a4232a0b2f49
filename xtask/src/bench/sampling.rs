//! What sampling costs the guest, and how far its figures are from the truth.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use plimsoll_pmap::Sampler;
use plimsoll_units::{CHUNK_PAGES, Pages};

use super::goal::Goal;
use super::memory::guest::Guest;
use super::memory::processor::{self, Place};
use super::report::{Figure, Report};
use crate::workspace::step;

/// What sampling may cost a thread that touches all memory, in percent.
const MOST_COST: f64 = 0.1;
/// Guest memory: 256 MiB.
const CHUNKS: u64 = 128;
/// Samples a period, as by default.
const SAMPLES: u32 = 100;
/// How much more often than by default periods begin: at the default rate the cost is far below what can be measured.
const FASTER: f64 = 100.0;
/// 30 s, that much faster.
const PERIOD: Duration = Duration::from_millis(300);
/// How long memory is touched with and without sampling, by turns: three periods.
const TURN: Duration = Duration::from_millis(900);
/// Working sets, in percent of memory.
const WORKING_SETS: [u64; 5] = [10, 25, 50, 75, 90];

const NOT_SHOWN: &str = "The cost is measured at 100 times the default rate and divided by 100; what that makes of the \
    machine's noise is in the spread, which may reach below zero. A busy machine shows: whoever touches what is aside waits for \
    a thread to answer. The guest is a thread of the host: a vCPU's exits are not in it. Errors are those of one period's \
    sample, before the averages smooth them, and of working sets of whole 2 MiB chunks: a chunk of which one page is used \
    counts as used.";

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench sampling\n  cargo xtask bench sampling --runs 51 --json"
)]
pub(crate) struct SamplingArgs {
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
    /// Percent of the toucher's time, at the default rate.
    cost: Vec<f64>,
    /// Microseconds of the sampler's thread for a sample, there and back.
    each: Vec<f64>,
    /// Percent of memory, for each working set.
    errors: [Vec<f64>; WORKING_SETS.len()],
}

/// Measures and reports; fails where the goal is missed.
pub(crate) fn run(arguments: &SamplingArgs) -> Result<ExitCode> {
    processor::stay(Place::Here);
    step(&format!("touching {} MiB with and without sampling, by turns", CHUNKS * 2));
    let guest = Guest::new(CHUNKS, Pages::ZERO, None, Place::Elsewhere)?;
    let mut measured = Measured::default();
    measured.measure(&guest)?;
    measured = Measured::default();
    (0..arguments.runs).try_for_each(|_| measured.measure(&guest))?;
    measured.report()?.print(arguments.json)
}

impl Measured {
    fn measure(&mut self, guest: &Guest) -> Result<()> {
        let without = rate(guest)?;
        let over = AtomicBool::new(false);
        let (with, each) = std::thread::scope(|scope| {
            let sampler = scope.spawn(|| sample(guest, &over));
            let with = rate(guest);
            over.store(true, Ordering::Relaxed);
            (with, sampler.join().expect("it does not panic"))
        });
        self.cost.push((without / with? - 1.0) * 100.0 / FASTER);
        self.each.push(each);
        for (errors, percent) in self.errors.iter_mut().zip(WORKING_SETS) {
            errors.push(error(guest, percent)?);
        }
        Ok(())
    }

    fn report(&self) -> Result<Report> {
        let cost = Figure::new("cost to a thread that touches all memory", "%", &self.cost)?;
        let goals =
            vec![Goal::at_most("cost to a thread that touches all memory, %", cost.spread.median, MOST_COST)];
        let mut figures =
            vec![cost, Figure::new("cost to the sampler's own thread, a sample", "us", &self.each)?];
        for (errors, percent) in self.errors.iter().zip(WORKING_SETS) {
            let name = format!("error at a working set of {percent} % of memory");
            figures.push(Figure::new(name, "% of memory", errors)?);
        }
        Ok(Report { runs: self.cost.len(), figures, goals, remarks: Vec::new(), not_shown: NOT_SHOWN })
    }
}

/// Pages touched a second by a thread that touches all of them over and over.
#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn rate(guest: &Guest) -> Result<f64> {
    let start = Instant::now();
    let mut touched = 0;
    while start.elapsed() < TURN {
        touch(guest, CHUNKS)?;
        touched += CHUNKS * CHUNK_PAGES;
    }
    Ok(touched as f64 / start.elapsed().as_secs_f64())
}

fn touch(guest: &Guest, chunks: u64) -> Result<()> {
    (0..chunks * CHUNK_PAGES).try_for_each(|ppn| guest.write(ppn, ppn))
}

/// Samples until it is over; returns what a sample took.
#[expect(clippy::cast_precision_loss, reason = "a mean")]
fn sample(guest: &Guest, over: &AtomicBool) -> f64 {
    processor::stay(Place::Elsewhere);
    let mut sampler = Sampler::new(guest.pmap.clone(), SAMPLES);
    let (mut busy, mut samples) = (Duration::ZERO, 0);
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        sampler.begin();
        busy += start.elapsed();
        samples += sampler.seen().chunks.sampled;
        std::thread::sleep(PERIOD);
        let start = Instant::now();
        sampler.end();
        busy += start.elapsed();
    }
    busy.as_secs_f64() * 1e6 / samples.max(1) as f64
}

/// How far one period's sample is from the truth, in percent of memory, where `percent` of it is touched.
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
