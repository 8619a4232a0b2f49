//! From no VM to all, from one daemon to the next, and back to none.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use plimsoll_lab::workspace::note;
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::{Stage, resources};
use plimsoll_protocol::status::{Power, VmStatus};
use plimsoll_sys::lock;

use super::SIZE;

/// Requests at a time. The daemon starts VMs side by side; more than a few wait for processors.
const CLIENTS: usize = 8;
/// VMs in a stretch, of which the first and the last are compared.
pub(super) const STRETCH: usize = 100;
/// How long all VMs together may take for one thing. A thousand starts take a minute; only a hang
/// takes longer than this.
const LIMIT: Duration = Duration::from_secs(1200);
/// How often all VMs are looked at: an account of a thousand takes both sides some 20 ms.
const LOOK: Duration = Duration::from_millis(200);
/// A client that is told to be slower waits for this long: the daemon makes 100 changes a second.
const SLOWER: Duration = Duration::from_millis(500);

/// All VMs, from the first request to the last answer.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) seconds: f64,
    /// Milliseconds from each request to its answer.
    pub(super) each: Vec<f64>,
    stretches: Vec<Stretch>,
}

/// A hundred starts in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stretch {
    pub(super) seconds: f64,
    /// Milliseconds of processor time of the daemon for each start.
    pub(super) daemon: f64,
}

impl Started {
    pub(super) fn first(&self) -> Stretch {
        self.stretches.first().copied().unwrap_or_default()
    }

    pub(super) fn last(&self) -> Stretch {
        self.stretches.last().copied().unwrap_or_default()
    }
}

/// The end of a stretch: when, and the daemon's processor time.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    daemon: Duration,
}

impl Mark {
    fn now(stage: &Stage) -> Result<Self> {
        let daemon = stage.daemon_pid()?;
        let daemon = resources::processor_time(daemon)?.context("the daemon has ended")?;
        Ok(Self { at: Instant::now(), daemon })
    }
}

/// Starts the VMs `names`, and waits until all guests run.
pub(super) fn start(stage: &Stage, names: &[String]) -> Result<Started> {
    let begin = Mark::now(stage)?;
    let (each, marks) = (Mutex::new(Vec::new()), Mutex::new(vec![begin]));
    for_each(names, |name| {
        let asked = Instant::now();
        let answer = change(stage, "POST", "/v1/vms", &Definition::new(name, SIZE, Runs::Model).json()?)?;
        let vm: VmStatus = serde_json::from_str(&answer).context("reading the answer")?;
        ensure!(vm.power != Power::Off, "it is off: {:?}", vm.exit);
        let mut each = lock(&each);
        each.push(asked.elapsed().as_secs_f64() * 1000.0);
        if each.len().is_multiple_of(STRETCH) {
            let (mark, mut marks) = (Mark::now(stage)?, lock(&marks));
            let took = mark.at.duration_since(marks.last().unwrap_or(&begin).at);
            note(&format!("{} are started, the last {STRETCH} in {:.1} s", each.len(), took.as_secs_f64()));
            marks.push(mark);
        }
        Ok(())
    })?;
    until(stage, "all guests run", |stage| {
        Ok(stage.vms()?.iter().filter(|vm| vm.power == Power::On).count() == names.len())
    })?;
    let marks = lock(&marks);
    Ok(Started {
        seconds: begin.at.elapsed().as_secs_f64(),
        each: std::mem::take(&mut *lock(&each)),
        stretches: marks.windows(2).map(|pair| stretch(pair[0], pair[1])).collect(),
    })
}

#[expect(clippy::cast_precision_loss, reason = "a hundred")]
fn stretch(begin: Mark, end: Mark) -> Stretch {
    let daemon = end.daemon.saturating_sub(begin.daemon).as_secs_f64() * 1000.0 / STRETCH as f64;
    Stretch { seconds: end.at.duration_since(begin.at).as_secs_f64(), daemon }
}

/// Waits until a new daemon has found all `count` VMs.
pub(super) fn until_adopted(stage: &Stage, count: usize) -> Result<()> {
    until(stage, "the new daemon has found all VMs", |stage| {
        let found = |vm: &&VmStatus| vm.power == Power::On && vm.note.is_none();
        Ok(stage.vms()?.iter().filter(found).count() == count)
    })
}

/// Stops the VMs `names`, waits until all are off, and has the daemon forget them. Returns the
/// seconds until they were off.
pub(super) fn stop(stage: &Stage, names: &[String]) -> Result<f64> {
    let begin = Instant::now();
    for_each(names, |name| change(stage, "POST", &format!("/v1/vms/{name}/stop"), "").map(drop))?;
    until(stage, "all VMs are off", |stage| Ok(stage.host()?.running == 0))?;
    let took = begin.elapsed().as_secs_f64();
    for_each(names, |name| change(stage, "DELETE", &format!("/v1/vms/{name}"), "").map(drop))?;
    Ok(took)
}

/// What the daemon answers to a change. A client that is too fast for it waits as it is told.
fn change(stage: &Stage, method: &str, path: &str, body: &str) -> Result<String> {
    loop {
        let reply = stage.ask(method, path, body)?;
        if reply.status != 429 {
            return reply.success();
        }
        thread::sleep(SLOWER);
    }
}

/// Does `work` for each of `names`, some side by side. Ends with the first error.
fn for_each(names: &[String], work: impl Fn(&str) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let client = || -> Result<()> {
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(name).with_context(|| name.clone()).inspect_err(|_| {
                next.store(names.len(), Ordering::Relaxed);
            })?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let ends = clients.into_iter().map(|client| client.join());
        // All of them end before the first error is told.
        let ends: Vec<_> = ends.collect();
        ends.into_iter().try_for_each(|end| end.map_err(|_| anyhow!("a client has panicked"))?)
    })
}

fn until(stage: &Stage, what: &str, mut is_so: impl FnMut(&Stage) -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !is_so(stage)? {
        ensure!(Instant::now() < deadline, "timed out after {} s waiting until {what}", LIMIT.as_secs());
        thread::sleep(LOOK);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_worked_on_once_and_an_error_ends_it() {
        let names: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let seen = Mutex::new(Vec::new());
        for_each(&names, |name| {
            lock(&seen).push(name.to_owned());
            Ok(())
        })
        .unwrap();
        let mut seen = seen.into_inner().unwrap();
        seen.sort_by_key(|name| name.parse::<u32>().unwrap());
        assert_eq!(seen, names);
        let error = for_each(&names, |name| {
            ensure!(name != "7", "no");
            Ok(())
        });
        assert_eq!(format!("{:#}", error.unwrap_err()), "7: no");
    }
}
