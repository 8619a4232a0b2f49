//! An experiment in the lab: boots it with what the guests need, runs the experiment's inner part
//! and collects what it measures.
//!
//! Guests are emulated, and the machine may do other things meanwhile: an hour of a guest is
//! whatever the machine had time for. So what counts as a measurement's time is for how long the
//! lab ran, which is measured from outside.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plimsoll_lab::wire::{Kind, Request};
use plimsoll_lab::workspace::Programs;
use plimsoll_lab::{Config, Lab, ProcessorTime, show};
use plimsoll_units::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What the inner part says, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
enum Said<T> {
    /// A measurement begins.
    Begin,
    /// What came out of it.
    Sample(T),
}

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Timed<T> {
    /// What the inner part measured.
    pub(super) sample: T,
    /// Seconds of processor time that the lab had for it.
    pub(super) ran: f64,
    /// Seconds that it took.
    pub(super) took: f64,
}

impl<T> Timed<T> {
    /// `amount` per second of the lab's own time: the rate on a machine that does nothing else.
    pub(super) fn rate(&self, amount: f64) -> f64 {
        amount / self.ran.max(0.001)
    }
}

/// What `xtask inside paper` with `arguments` measured, in a lab with `memory` that has a copy of
/// `share`, if any. Its progress is shown as it comes.
pub(super) fn measured<T: DeserializeOwned>(
    programs: &Programs,
    memory: Bytes,
    share: Option<&Path>,
    arguments: &[String],
    limit: Duration,
) -> Result<Vec<Timed<T>>> {
    let config = Config { memory, share: share.map(Path::to_owned), ..Config::default() };
    let mut lab = Lab::boot(&config, programs)?;
    let argv = ["/bin/xtask", "inside", "paper"].map(str::to_owned).into_iter();
    let request = Request { argv: argv.chain(arguments.iter().cloned()).collect(), env: Vec::new() };
    let mut listener = Listener::new(lab.processor_time())?;
    let status = lab.run(&request, limit, &mut |kind, bytes| match kind {
        Kind::Out => listener.hear(bytes),
        _ => show(kind, bytes),
    })?;
    ensure!(status == 0, "the experiment in the lab failed: see its messages above");
    Ok(listener.samples)
}

/// Listens to the inner part.
struct Listener<T> {
    clock: ProcessorTime,
    began: (Instant, Duration),
    pending: Vec<u8>,
    samples: Vec<Timed<T>>,
}

impl<T: DeserializeOwned> Listener<T> {
    fn new(clock: ProcessorTime) -> Result<Self> {
        Ok(Self { clock, began: (Instant::now(), clock.now()?), pending: Vec::new(), samples: Vec::new() })
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<()> {
        self.pending.extend(bytes);
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let said = serde_json::from_slice(&line);
            let text = || format!("reading what was measured: {:?}", String::from_utf8_lossy(&line));
            match said.with_context(text)? {
                Said::Begin => self.began = (Instant::now(), self.clock.now()?),
                Said::Sample(sample) => {
                    let (took, ran) =
                        (self.began.0.elapsed(), self.clock.now()?.saturating_sub(self.began.1));
                    let (took, ran) = (took.as_secs_f64(), ran.as_secs_f64());
                    self.samples.push(Timed { sample, ran, took });
                }
            }
        }
        Ok(())
    }
}

/// In the lab: a measurement begins.
pub(super) fn begin() -> Result<()> {
    say(&Said::<()>::Begin)
}

/// In the lab: passes on what was measured.
pub(super) fn sample(sample: &impl Serialize) -> Result<()> {
    say(&Said::Sample(sample))
}

#[expect(clippy::print_stdout, reason = "the outer part reads it there")]
fn say<T: Serialize>(said: &Said<T>) -> Result<()> {
    println!("{}", serde_json::to_string(said).context("writing what was measured")?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_inner_part_says_is_heard_however_it_is_cut() {
        let mut listener = Listener::<u32>::new(ProcessorTime::of(std::process::id())).unwrap();
        let text = format!(
            "{}\n{}\n",
            serde_json::to_string(&Said::<()>::Begin).unwrap(),
            serde_json::to_string(&Said::Sample(7)).unwrap()
        );
        for byte in text.as_bytes() {
            listener.hear(&[*byte]).unwrap();
        }
        assert_eq!(listener.samples.len(), 1);
        assert!(listener.samples[0].sample == 7 && listener.samples[0].ran.is_finite());
        assert!(listener.hear(b"nonsense\n").is_err());
    }
}
