//! A booted virtual host, to run commands in.
//!
//! [`Lab::boot`] starts it; [`Lab::run`] runs commands in it, as often as one likes, and
//! [`Lab::fetch`] brings files back. The lab dies with its [`Lab`], and with this program.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use plimsoll_units::Bytes;
use preflight::packages;

use crate::config::Config;
use crate::failure::{Failure, last_lines};
use crate::host::qemu::{Boot, Qemu};
use crate::host::{disk, image};
use crate::kernel::Kernel;
use crate::processor_time::ProcessorTime;
use crate::programs;
use crate::wire::{self, Frame, Frames, Kind, Next, Request};
use crate::workspace::{Programs, note, step};

/// How long the lab may take to boot. Five seconds are usual; a loaded machine takes several times
/// that.
const BOOT_DEADLINE: Duration = Duration::from_secs(120);

/// The size of the lab's own disk: swap space for all VMs of any test, and what a host keeps
/// beside.
const SCRATCH: Bytes = Bytes::mib(8 << 10);

/// How often a wait looks at its deadline.
const TICK: Duration = Duration::from_millis(100);

/// How long the lab is left without an interrupt from outside. QEMU's VMRUN writes the processor's
/// pending interrupts without the lock that its timers take ([`crate::host::qemu`] says more), so
/// that a timer's interrupt is lost now and then, and with it the clock of a kernel that programs
/// its next timer in the handler of the last: the lab then stood still for minutes, until some
/// device woke it. Each interrupt delivers those before it. More often would cost the lab time,
/// seldomer is seen.
const BEAT: Duration = Duration::from_millis(100);

/// After a command was told to die, how long its end may take to be reported.
const KILL_GRACE: Duration = Duration::from_secs(15);

/// Lines of console shown when something fails: enough for a kernel's oops.
const TAIL_LINES: usize = 60;

/// A booted lab.
pub struct Lab {
    // The port is closed before QEMU is killed: fields are dropped in order.
    frames: Frames<UnixStream>,
    qemu: Qemu,
    describe: String,
}

impl Lab {
    /// Boots it with `programs` inside. What is missing on this machine is installed or named.
    pub fn boot(config: &Config, programs: &Programs) -> Result<Self> {
        packages::ensure(packages::LAB)?;
        let kernel = Kernel::get(config.kernel)?;
        let initramfs = image::build(&kernel, programs)?;
        let scratch = disk::empty(SCRATCH)?;
        let share = config.share.as_deref().map(disk::copy_of).transpose()?;
        step(&format!("booting the lab ({}, {} of memory)", config.describe(), config.memory));
        let begin = Instant::now();
        let boot =
            Boot { kernel: &kernel.image, initramfs: &initramfs, scratch: &scratch, share: share.as_ref() };
        let (qemu, port) = Qemu::start(config, &boot)?;
        port.set_read_timeout(Some(TICK))?;
        let mut lab = Self { frames: Frames::new(port), qemu, describe: config.describe() };
        lab.ready(begin + BOOT_DEADLINE)?;
        note(&format!("up after {:.1} s", begin.elapsed().as_secs_f64()));
        Ok(lab)
    }

    /// Runs `request` in the lab; what it prints goes to `output` as it comes, as [`Kind::Out`] or
    /// [`Kind::Err`]. Returns its exit status. A command that runs longer than `limit` is killed,
    /// which is an error; the lab goes on.
    pub fn run(
        &mut self,
        request: &Request,
        limit: Duration,
        output: &mut dyn FnMut(Kind, &[u8]) -> Result<()>,
    ) -> Result<i32> {
        let what = request.argv.join(" ");
        let message = serde_json::to_vec(request).context("writing a request to the lab")?;
        ensure!(message.len() <= wire::MAX_PAYLOAD, "{what}: too long a command for the lab");
        wire::send(self.frames.stream(), Kind::Run, &message)
            .with_context(|| self.failure("sending a command"))?;
        let mut deadline = Instant::now() + limit;
        let mut late = false;
        loop {
            let beat = deadline.min(Instant::now() + BEAT);
            match self.frames.next(Some(beat)).with_context(|| self.failure("reading from the lab"))? {
                Next::Frame(Frame { kind: kind @ (Kind::Out | Kind::Err), payload }) => {
                    output(kind, &payload)?
                }
                Next::Frame(Frame { kind: Kind::Exit, payload }) if !late => return status(&payload),
                Next::Frame(Frame { kind: Kind::Exit, .. }) => {
                    bail!("{what}: killed, because it ran longer than {} s", limit.as_secs())
                }
                Next::Frame(frame) => bail!("unexpected {:?} from the lab", frame.kind),
                Next::End => bail!(self.failure(&format!("the lab went down while it ran {what}"))),
                Next::Late if Instant::now() < deadline => {
                    wire::send(self.frames.stream(), Kind::Beat, &[])
                        .with_context(|| self.failure("waking the lab"))?;
                }
                Next::Late if late => bail!(self.failure(&format!("the lab hangs in {what}"))),
                Next::Late => {
                    late = true;
                    deadline = Instant::now() + KILL_GRACE;
                    wire::send(self.frames.stream(), Kind::Kill, &[])
                        .with_context(|| self.failure("sending a kill"))?;
                }
            }
        }
    }

    /// Runs `request` with its output on ours, as it comes.
    pub fn run_shown(&mut self, request: &Request, limit: Duration) -> Result<i32> {
        self.run(request, limit, &mut show)
    }

    /// Copies the directory `inside` of the lab to `outside`, which is made when missing.
    pub fn fetch(&mut self, inside: &str, outside: &Path) -> Result<()> {
        fs::create_dir_all(outside).with_context(|| format!("making {}", outside.display()))?;
        let busybox = programs::busybox()?;
        let mut tar = Command::new(busybox);
        tar.args(["tar", "-x", "-f", "-", "-C"]).arg(outside).stdin(Stdio::piped());
        let mut tar = tar.spawn().context("starting busybox tar")?;
        let mut sink = tar.stdin.take().context("busybox tar takes no input")?;
        let argv = ["tar", "-c", "-f", "-", "-C", inside, "."].map(str::to_owned).to_vec();
        let mut complaints = Vec::new();
        let result =
            self.run(&Request { argv, env: Vec::new() }, Duration::from_secs(300), &mut |kind, bytes| {
                match kind {
                    Kind::Out => sink.write_all(bytes).context("writing to busybox tar")?,
                    _ => complaints.extend(bytes),
                }
                Ok(())
            });
        drop(sink);
        let unpacked = tar.wait()?;
        let complaints = String::from_utf8_lossy(&complaints);
        ensure!(
            result? == 0 && unpacked.success(),
            "copying {inside} out of the lab failed: {}",
            complaints.trim()
        );
        Ok(())
    }

    /// How much it has run.
    pub fn processor_time(&self) -> ProcessorTime {
        ProcessorTime::of(self.qemu.pid())
    }

    /// Everything that the lab's kernel wrote to its console.
    pub fn console(&self) -> String {
        self.qemu.console().unwrap_or_else(|error| format!("(the console cannot be read: {error})"))
    }

    /// The last lines of that.
    pub fn console_tail(&self) -> String {
        last_lines(&self.console(), TAIL_LINES).join("\n")
    }

    /// Waits until the lab's agent is there, until `deadline`.
    fn ready(&mut self, deadline: Instant) -> Result<()> {
        let limit = BOOT_DEADLINE.as_secs();
        // All of the console is shown: a lab that does not boot has written little.
        let failure = |lab: &Self, what: &str| Failure { lines: usize::MAX, ..lab.failure(what) };
        match self.frames.next(Some(deadline)) {
            Ok(Next::Frame(frame)) if frame.kind == Kind::Ready => Ok(()),
            Ok(Next::Frame(frame)) => bail!("the lab began with {:?}", frame.kind),
            Ok(Next::End) => bail!(failure(self, "QEMU ended before the lab was up")),
            Ok(Next::Late) => bail!(failure(self, &format!("the lab did not boot within {limit} s"))),
            Err(error) => Err(error).context(failure(self, "reading from the lab while it boots")),
        }
    }

    /// `what`, with QEMU's own messages and the console.
    fn failure(&self, what: &str) -> Failure {
        let messages = self.qemu.messages().unwrap_or_default();
        let messages: String = messages.trim().lines().map(|line| format!("\n  {line}")).collect();
        let what = format!("{what} ({}){messages}", self.describe);
        Failure { what, console: self.console(), lines: TAIL_LINES }
    }
}

/// Passes a command's output on to ours.
pub fn show(kind: Kind, bytes: &[u8]) -> Result<()> {
    let shown = match kind {
        Kind::Out => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        _ => std::io::stderr().lock().write_all(bytes),
    };
    shown.context("passing the lab's output on")
}

/// The exit status in the payload of [`Kind::Exit`].
pub(crate) fn status(payload: &[u8]) -> Result<i32> {
    let text = String::from_utf8_lossy(payload);
    text.parse().with_context(|| format!("exit status {text:?} from the lab"))
}
