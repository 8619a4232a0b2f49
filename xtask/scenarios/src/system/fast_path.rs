//! A guest that is entitled to memory gets it at once, although another must give it up first; and
//! while it waits, it is said why.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::note;
use plimsoll_operate::Stage;
use plimsoll_operate::definition::Definition;
use plimsoll_operate::standstill::Standstill;
use plimsoll_operate::toucher::Toucher;
use plimsoll_protocol::status::PagingCause;
use plimsoll_units::Bytes;

use crate::guests::Guests;
use plimsoll_operate::swap_space::SwapSpace;

const RICH: &str = "rich";
const NEEDY: &str = "needy";
const SIZE: Bytes = Bytes::mib(256);
const SWAP: Bytes = Bytes::mib(576);
/// What guests write.
struct Plan {
    /// Half of it is more than the needy one ever wants: it is entitled to that however busy the
    /// rich one seems.
    budget: Bytes,
    /// The rich one. With its kernel that is next to all that the other leaves.
    rich: Bytes,
    /// The needy one, first, and then while the rich one's process stands still.
    needy: [Bytes; 2],
}

impl Plan {
    fn of(kinds: Guests) -> Self {
        let mib = Bytes::mib;
        match kinds {
            Guests::Models => Self { budget: mib(272), rich: mib(232), needy: [mib(80), mib(32)] },
            // A kernel takes 45 MiB, and of 256 MiB leaves about 190 to programs.
            Guests::Kernels => Self { budget: mib(304), rich: mib(176), needy: [mib(48), mib(24)] },
        }
    }
}

/// How long nothing has moved when nothing does: VMMs return what their guests have not needed for
/// a second or two.
const QUIET: Duration = Duration::from_secs(4);
/// What the other has to give, at least.
const FELT: Bytes = Bytes::mib(16);
const LIMIT: Duration = Duration::from_secs(240);

pub(super) fn run(kinds: Guests) -> Result<()> {
    let swap = SwapSpace::new(SWAP)?;
    // Next to nothing is kept free, so that what one wants another has to give.
    let settings = format!(
        "min_free = \"4MiB\"\nlargest_balloon = 1\nsample_period = 5\nlog = \"plimsoll_host=debug\"\n{}",
        swap.setting()
    );
    let stage = Stage::open_with(Plan::of(kinds).budget, &settings)?;
    let result = scenario(&stage, kinds);
    stage.explained(result)
}

fn scenario(stage: &Stage, kinds: Guests) -> Result<()> {
    for (name, kernel) in [(RICH, Version::V6_1), (NEEDY, Version::V6_12)] {
        let mut definition = Definition::new(name, SIZE, kinds.run(kernel));
        definition.balloon_driver = false;
        stage.run(&definition)?;
    }
    let [mut rich, mut needy] = [stage.toucher(RICH)?, stage.toucher(NEEDY)?];
    let plan = Plan::of(kinds);
    rich.ask(&format!("touch {} 1", plan.rich.0), LIMIT)?;
    let mut last = (Bytes::ZERO, Instant::now());
    stage.wait("one guest has next to all memory, and nothing moves", LIMIT, |stage| {
        let (host, rich, needy) = (stage.host()?, stage.vm(RICH)?, stage.vm(NEEDY)?);
        let waits = rich.wanted > Bytes::ZERO || needy.wanted > Bytes::ZERO;
        if waits || last.0 != host.free {
            last = (host.free, Instant::now());
        }
        let has_most = rich.grant > rich.entitlement && host.free + FELT <= plan.needy[0];
        Ok((last.1.elapsed() >= QUIET && has_most).then_some(()))
    })?;
    at_once(stage, &mut needy, plan.needy[0])?;
    says_why(stage, &mut needy, plan.needy[1])?;
    for (guest, bytes) in [(&mut rich, plan.rich), (&mut needy, plan.needy[0] + plan.needy[1])] {
        let right = guest.verify_all(LIMIT)?;
        ensure!(right == bytes.0, "only {right} bytes were verified");
    }
    for (name, mut guest) in [(RICH, rich), (NEEDY, needy)] {
        guest.send("poweroff")?;
        stage.wait_off(name, LIMIT)?;
    }
    Ok(())
}

/// What the one has beyond its entitlement is paged out of it as soon as the other needs it: before
/// that has waited for the period in which memory is divided anew otherwise.
fn at_once(stage: &Stage, needy: &mut Toucher, wanted: Bytes) -> Result<()> {
    note(&format!("one guest has next to all memory, the other writes {wanted}"));
    let before = stage.daemon_log().len();
    needy.ask(&format!("touch {} 2", wanted.0), LIMIT)?;
    let log = stage.daemon_log();
    let story = Story::of(log.get(before..).unwrap_or_default())?;
    ensure!(
        story.called_in > 0,
        "nothing was called in from the VM that has more than its entitlement:\n{log}"
    );
    ensure!(!story.in_vain, "the VM that is entitled to memory has waited in vain for it:\n{log}");
    let mut waits = story.waits;
    ensure!(!waits.is_empty(), "it never waited for the other");
    waits.sort_unstable();
    let (count, median, longest) = (waits.len(), waits[waits.len() / 2], waits[waits.len() - 1]);
    note(&format!(
        "it waited {count} times for what the other had to give, {} ms in the median, {} at most",
        median.as_millis(),
        longest.as_millis()
    ));
    Ok(())
}

/// Why a VM is told to page out of what it has beyond its entitlement: another VM is owed that
/// memory, or the host's state, which that debt has worsened, asks for it.
const CALLED_IN: [&str; 2] = ["why=Some(Owed)", "why=Some(AboveTarget)"];

/// What the daemon's log tells of the needy VM.
#[derive(Debug, Default, PartialEq, Eq)]
struct Story {
    /// How often the rich VM was told to give what the other is entitled to.
    called_in: u32,
    /// The needy VM has waited for a whole period, and had to help itself.
    in_vain: bool,
    /// How long it waited each time until it had what it wanted, if that was not there at once.
    waits: Vec<Duration>,
}

impl Story {
    fn of(log: &str) -> Result<Self> {
        let mut story = Self::default();
        let mut since: Option<Timestamp> = None;
        for line in log.lines() {
            let Some((at, text)) = line.split_once(' ') else { continue };
            let Ok(at) = at.parse::<Timestamp>() else { continue };
            let says = |what: &str| text.contains(what);
            if says(": want vm=needy ") {
                since = since.or(Some(at));
            } else if says(": paging level ") && says("vm=rich ") && CALLED_IN.iter().any(|why| says(why)) {
                story.called_in += 1;
            } else if says(": paging level ") && says("vm=needy ") && says("why=Some(Waited)") {
                story.in_vain = true;
            } else if says(": grant vm=needy ") && says(" left=0B ") {
                let begin = since.take().context("a grant that answers no want")?;
                let waited = Duration::try_from(at.duration_since(begin)).unwrap_or_default();
                // What is there is granted within the same breath.
                if waited > Duration::from_millis(1) {
                    story.waits.push(waited);
                }
            }
        }
        Ok(story)
    }
}

/// While the rich VM's process stands still the needy one waits; its explanation says what for, and
/// from when on it helps itself.
fn says_why(stage: &Stage, needy: &mut Toucher, wanted: Bytes) -> Result<()> {
    note("the VM that would have to give stands still: the other waits, and is told why");
    let still = Standstill::of(stage.vm(RICH)?.pid.context("the rich VM has no process")?)?;
    needy.send(&format!("touch {} 3", wanted.0))?;
    explains(stage, NEEDY, " within its entitlement; ")?;
    explains(stage, RICH, "; paged out down to ")?;
    explains(stage, NEEDY, "waited in vain for memory: it makes room by paging out its own")?;
    ensure!(stage.vm(NEEDY)?.paging.why == Some(PagingCause::Waited), "{:?}", stage.vm(NEEDY)?.paging);
    drop(still);
    needy.receive("touch", LIMIT).map(drop)
}

/// Waits until the explanation of a VM says `what`.
fn explains(stage: &Stage, name: &str, what: &str) -> Result<()> {
    let mut said = String::new();
    let result = stage.wait(&format!("explain {name} says {what:?}"), LIMIT, |stage| {
        said = String::from_utf8_lossy(&stage.plimsoll(&["explain", name])?.stdout).into_owned();
        Ok(said.contains(what).then_some(()))
    });
    result.with_context(|| said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_from_the_daemons_log() {
        let log = "\
2026-11-23T07:00:00.000000Z DEBUG plimsoll_host::core::messages: want vm=needy wanted=2MiB
2026-11-23T07:00:00.000100Z DEBUG plimsoll_host::core::grants: grant vm=needy granted=2MiB total=64MiB left=0B free=10MiB
2026-11-23T07:00:01.000000Z DEBUG plimsoll_host::core::messages: want vm=needy wanted=4MiB
2026-11-23T07:00:01.010000Z DEBUG plimsoll_host::core::divide: paging level vm=rich level=200MiB why=Some(Owed) block=false
2026-11-23T07:00:01.020000Z DEBUG plimsoll_host::core::grants: grant vm=needy granted=2MiB total=64MiB left=2MiB free=0B
2026-11-23T07:00:01.030000Z DEBUG plimsoll_host::core::messages: want vm=needy wanted=2MiB
2026-11-23T07:00:01.050000Z DEBUG plimsoll_host::core::grants: grant vm=needy granted=2MiB total=64MiB left=0B free=0B
";
        let story = Story { called_in: 1, in_vain: false, waits: vec![Duration::from_millis(50)] };
        assert_eq!(Story::of(log).unwrap(), story);
        let late =
            "2026-11-23T07:00:02Z DEBUG x: paging level vm=needy level=1MiB why=Some(Waited) block=false\n";
        assert!(Story::of(late).unwrap().in_vain);
    }
}
