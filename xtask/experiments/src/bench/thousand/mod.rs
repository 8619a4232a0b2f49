//! A thousand VMs on one daemon: how long they take to start, what they cost at rest and with some
//! busy, how a daemon that was killed finds them again, and what is left when all are off.

mod answers;
mod cost;
mod course;
mod limits;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::Args;
use plimsoll_lab::workspace::{self, note, step};
use plimsoll_operate::Stage;
use plimsoll_operate::remains::{Before, Remains};
use plimsoll_operate::toucher::Toucher;
use plimsoll_units::Bytes;

use self::answers::Answers;
use self::cost::{Cost, Memory};
use self::course::Started;
use super::goal::Goal;
use super::report::{Figure, Report};

/// The smallest VM.
const SIZE: Bytes = Bytes::mib(32);
/// Machine memory for each: 8.75 MiB are charged for its process, and a guest at rest needs none.
const PART: Bytes = Bytes::mib(13);
/// There is no swap space: it would take the whole size of each VM on disk, and nothing is paged
/// out here.
const SETTINGS: &str = "swap.enabled = false\n";
/// What the busy guests write again and again.
const TOUCHED: Bytes = Bytes::mib(2);
/// How often each of them does.
const TURN: Duration = Duration::from_secs(1);
/// How long VMs rest before they are watched: grants that no guest needs come back in that time.
const SETTLE: Duration = Duration::from_secs(10);
/// How long a guest may take to answer.
const LIMIT: Duration = Duration::from_secs(60);

/// How much more processor time the daemon may spend on the last hundred starts than on the first.
/// Each start looks at the VMs that run, and they report meanwhile: that grows with their number.
/// Work of a start that looks at all pairs of them would make it a hundred times as much.
const MOST_GROWTH: f64 = 10.0;
/// Milliseconds for an answer about the host or one VM, in the median.
const MOST_ANSWER: f64 = 5.0;
/// Percent of a processor that the daemon takes while nothing happens.
const MOST_IDLE: f64 = 25.0;
/// Seconds until a restarted daemon answers: it waits for at most one for VMs that are late.
const MOST_SILENCE: f64 = 10.0;

const NOT_SHOWN: &str = "Guests are models, threads of their VMMs: no guest kernel runs, and no vCPU. Times are those of \
    clients, VMMs and the daemon on the same processors; other programs make them longer. Processor time of the daemon \
    counts all that it does meanwhile, reports of VMs that run already included.";

#[derive(Debug, Args)]
#[command(
    after_help = "Each VM needs some 4 MiB of memory, 10 descriptors of the daemon and 8 threads: a limit that is too \
    low for that is named before anything is started.\n\nExamples:\n  cargo xtask bench thousand\n  \
    cargo xtask bench thousand --vms 200 --watch 10 --json"
)]
pub struct ThousandArgs {
    /// VMs of 32 MiB, the smallest that there are.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=4000))]
    vms: u32,
    /// How many of them write 2 MiB each second while the others rest.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    busy: u32,
    /// Seconds for which they are watched at rest, and again with some busy.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u32).range(5..=600))]
    watch: u32,
    /// As its last line, print the figures as one JSON object.
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Debug)]
struct Measured {
    started: Started,
    idle: Cost,
    busy: Cost,
    daemon: Memory,
    vmms: Vec<Memory>,
    idle_answers: Answers,
    busy_answers: Answers,
    /// Seconds from the start of another daemon to its first answer.
    answered: f64,
    /// Seconds until it has found all VMs.
    adopted: f64,
    /// Seconds until all were off.
    stopped: f64,
    remains: Remains,
}

/// Measures and reports; fails where a goal is missed.
pub(crate) fn run(arguments: &ThousandArgs) -> Result<ExitCode> {
    limits::check(arguments.vms)?;
    workspace::build_for_models()?;
    let budget = Bytes(PART.0 * u64::from(arguments.vms));
    let mut stage = Stage::open_with(budget, SETTINGS)?;
    let measured = measure(&mut stage, arguments)?;
    report(&measured)?.print(arguments.json)
}

fn measure(stage: &mut Stage, arguments: &ThousandArgs) -> Result<Measured> {
    let names: Vec<String> = (1..=arguments.vms).map(|n| format!("v{n:04}")).collect();
    let watch = Duration::from_secs(u64::from(arguments.watch));
    let mut before = Before::of(stage)?;
    step(&format!("starting {} model guests of {SIZE}", names.len()));
    let started = course::start(stage, &names)?;
    let pids: Vec<u32> = stage.vms()?.iter().filter_map(|vm| vm.pid).collect();
    before.note(pids.iter().copied());
    step(&format!("they rest, and are watched for {} s", watch.as_secs()));
    thread::sleep(SETTLE);
    let idle = cost::over(stage, &pids, || {
        thread::sleep(watch);
        Ok(())
    })?;
    let (daemon, vmms) = cost::memory(stage, &pids)?;
    let idle_answers = answers::ask(stage, &names)?;
    step(&format!("{} of them write {TOUCHED} each second", arguments.busy));
    let busy_names = &names[..names.len().min(arguments.busy as usize)];
    let (busy, busy_answers) = while_busy(stage, busy_names, || {
        let cost = cost::over(stage, &pids, || {
            thread::sleep(watch);
            Ok(())
        })?;
        Ok((cost, answers::ask(stage, &names)?))
    })?;
    step("killing the daemon, and starting another");
    stage.kill_daemon()?;
    let begin = Instant::now();
    stage.start_daemon()?;
    let answered = begin.elapsed().as_secs_f64();
    course::until_adopted(stage, names.len())?;
    let adopted = begin.elapsed().as_secs_f64();
    note(&format!("it answered after {answered:.1} s, and had found all VMs after {adopted:.1} s"));
    step("stopping all of them");
    let stopped = course::stop(stage, &names)?;
    let remains = before.remains(stage)?;
    note(&remains.to_string());
    Ok(Measured {
        started,
        idle,
        busy,
        daemon,
        vmms,
        idle_answers,
        busy_answers,
        answered,
        adopted,
        stopped,
        remains,
    })
}

/// Runs `work` while the guests `names` write.
fn while_busy<T>(stage: &Stage, names: &[String], work: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut guests = names.iter().map(|name| stage.toucher(name)).collect::<Result<Vec<Toucher>>>()?;
    for guest in &mut guests {
        guest.ask(&format!("touch {} 1", TOUCHED.0), LIMIT)?;
    }
    let (end, ends) = std::sync::mpsc::channel::<()>();
    thread::scope(|scope| {
        let writer = scope.spawn(move || -> Result<()> {
            loop {
                let begin = Instant::now();
                for guest in &mut guests {
                    guest.ask("rewrite 1", LIMIT)?;
                }
                match ends.recv_timeout(TURN.saturating_sub(begin.elapsed())) {
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                    _ => return Ok(()),
                }
            }
        });
        let result = work();
        drop(end);
        writer.join().map_err(|_| anyhow!("the thread of the busy guests has panicked"))??;
        result
    })
}

fn report(measured: &Measured) -> Result<Report> {
    let Measured { started, idle, busy, daemon, vmms, remains, .. } = measured;
    let one = |name: &str, unit, value: f64| Figure::new(name, unit, &[value]);
    let of = |part: fn(&Memory) -> Bytes| vmms.iter().map(|vmm| in_mib(part(vmm))).collect::<Vec<_>>();
    let count = vmms.len().max(1);
    let mut figures = vec![
        one("all are started", "s", started.seconds)?,
        one("the first hundred", "s", started.first().seconds)?,
        one("the last hundred", "s", started.last().seconds)?,
        one("the daemon's time for each start of the first hundred", "ms", started.first().daemon)?,
        one("the daemon's time for each start of the last hundred", "ms", started.last().daemon)?,
        Figure::new("a start", "ms", &started.each)?,
        one("the daemon at rest", "% of a processor", idle.daemon)?,
        one("all VMMs at rest", "% of a processor", idle.vmms)?,
        one("the daemon with some busy", "% of a processor", busy.daemon)?,
        one("all VMMs with some busy", "% of a processor", busy.vmms)?,
        one("the daemon's resident memory", "MiB", in_mib(daemon.resident))?,
        one("the daemon's part of memory (PSS)", "MiB", in_mib(daemon.pss))?,
        one("the daemon's descriptors for each VM", "", divided(daemon.descriptors, count))?,
        Figure::new("a VMM's part of memory (PSS)", "MiB", &of(|vmm| vmm.pss))?,
        Figure::new("a VMM's anonymous memory", "MiB", &of(|vmm| vmm.anonymous))?,
    ];
    figures.extend(measured.idle_answers.figures("at rest")?);
    figures.extend(measured.busy_answers.figures("with some busy")?);
    figures.extend([
        one("a new daemon answers", "s", measured.answered)?,
        one("a new daemon has found all VMs", "s", measured.adopted)?,
        one("all are stopped", "s", measured.stopped)?,
    ]);
    let growth = started.last().daemon / started.first().daemon;
    let answers = &measured.idle_answers;
    let left = remains.processes.len() + remains.groups.len() + remains.files.len();
    let goals = vec![
        Goal::at_most(
            "the daemon's time for one of the last hundred starts, over the first",
            growth,
            MOST_GROWTH,
        ),
        Goal::at_most("the daemon at rest, in percent of a processor", idle.daemon, MOST_IDLE),
        Goal::at_most("milliseconds for GET /v1/host, in the median", answers.host.median(), MOST_ANSWER),
        Goal::at_most("milliseconds for GET /v1/vms/NAME, in the median", answers.vm.median(), MOST_ANSWER),
        Goal::at_most("seconds until a new daemon answers", measured.answered, MOST_SILENCE),
        Goal::at_most("processes, control groups and files that are left over", divided(left as u64, 1), 0.0),
        Goal::at_most("descriptors that are left over", divided(remains.descriptors, 1), 0.0),
    ];
    let remarks = vec![format!("When all were stopped and forgotten: {remains}.")];
    Ok(Report { runs: 1, figures, goals, remarks, not_shown: NOT_SHOWN })
}

#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
fn in_mib(bytes: Bytes) -> f64 {
    bytes.0 as f64 / f64::from(1 << 20)
}

#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
fn divided(sum: u64, count: usize) -> f64 {
    sum as f64 / count as f64
}
