//! One daemon with its VMs, in a directory of its own; it ends with everything that it started.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use plimsoll_protocol::status::{HostStatus, Power, VmStatus};
use plimsoll_units::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::account::Account;
use crate::api::{Api, Reply};
use crate::definition::Definition;
use crate::files::Files;
use crate::place::program;
use crate::toucher::Toucher;

/// How long the daemon may take to answer, in emulation and on a loaded machine.
const DAEMON_DEADLINE: Duration = Duration::from_secs(60);

/// How long one `plimsoll` command may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(180);

/// How often a condition is looked at.
const TICK: Duration = Duration::from_millis(50);

/// A daemon and its VMs.
pub struct Stage {
    directory: TempDir,
    files: Files,
    daemon: Option<Child>,
    api: Api,
    // VMMs outlive the daemon by design, so their ends are ours to see to.
    seen: Mutex<BTreeSet<u32>>,
}

impl Stage {
    /// Starts a daemon with `budget` of machine memory, and waits until it answers.
    pub fn open(budget: Bytes) -> Result<Self> {
        // Samples seven times as often as usual, so that what guests use shows within the time of a
        // test.
        Self::open_with(budget, "sample_period = 2\n")
    }

    /// The same with further lines of configuration.
    pub fn open_with(budget: Bytes, settings: &str) -> Result<Self> {
        Self::open_where(budget, settings, |_| Ok(()))
    }

    /// The same in a directory that `prepare` has prepared. The daemon keeps its records and logs
    /// in `state` in it.
    pub fn open_where(
        budget: Bytes,
        settings: &str,
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        Self::begin(budget, &program("plimsoll-vmm")?, settings, prepare)
    }

    /// The same with this program as every VM's VMM. It ends with the stage if its name begins with
    /// `plimsoll-vmm`.
    pub fn open_with_vmm(budget: Bytes, vmm: &Path, settings: &str) -> Result<Self> {
        Self::begin(budget, vmm, settings, |_| Ok(()))
    }

    fn begin(
        budget: Bytes,
        vmm: &Path,
        settings: &str,
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let directory =
            tempfile::Builder::new().prefix("plimsoll-").tempdir().context("making a directory")?;
        let files = Files::below(directory.path());
        let api = Api::at(files.socket());
        let mut stage = Self { directory, files, daemon: None, api, seen: Mutex::default() };
        let path = |name: &str| stage.path().join(name).display().to_string();
        let text = format!(
            "budget = {}\nstate_directory = {:?}\nrun_directory = {:?}\nsocket = {:?}\nvmm = {:?}\n{settings}",
            budget.0,
            path("state"),
            path("run"),
            stage.socket().display().to_string(),
            vmm.display().to_string(),
        );
        fs::create_dir_all(stage.path().join("run"))?;
        fs::write(stage.path().join("plimsolld.toml"), text)?;
        prepare(stage.path())?;
        stage.start_daemon()?;
        Ok(stage)
    }

    /// Starts the daemon, which must not run, and waits until it answers.
    pub fn start_daemon(&mut self) -> Result<()> {
        self.spawn_daemon()?;
        self.wait_for_daemon()
    }

    /// Starts the daemon, which must not run.
    pub fn spawn_daemon(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.files.daemon_log())?;
        let mut command = Command::new(program("plimsolld")?);
        command.arg("--config").arg(self.path().join("plimsolld.toml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.daemon = Some(command.spawn().context("starting plimsolld")?);
        Ok(())
    }

    /// Waits until the daemon answers.
    pub fn wait_for_daemon(&mut self) -> Result<()> {
        let deadline = Instant::now() + DAEMON_DEADLINE;
        loop {
            match self.host() {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    bail!("plimsolld does not answer: {error:#}\n{}", self.daemon_log())
                }
                Err(_) => std::thread::sleep(TICK),
            }
            if let Some(status) = self.daemon.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("plimsolld ended with {status}:\n{}", self.daemon_log());
            }
        }
    }

    /// Kills the daemon as a crash would, and waits until it is gone.
    pub fn kill_daemon(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("the daemon does not run")?;
        daemon.kill().context("killing plimsolld")?;
        daemon.wait().context("waiting for plimsolld")?;
        Ok(())
    }

    /// Ends the daemon as the service manager does, and waits until it is gone.
    ///
    /// # Errors
    /// It goes on for too long, or ends with an error.
    pub fn end_daemon(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("the daemon does not run")?;
        kill_process(Pid::from_child(&daemon), Signal::TERM).context("ending plimsolld")?;
        let deadline = Instant::now() + DAEMON_DEADLINE;
        let status = loop {
            if let Some(status) = daemon.try_wait().context("waiting for plimsolld")? {
                break status;
            }
            if Instant::now() > deadline {
                // It ends with the stage.
                self.daemon = Some(daemon);
                bail!("plimsolld does not end: {}", self.daemon_log());
            }
            std::thread::sleep(TICK);
        };
        ensure!(status.success(), "plimsolld ended with {status}:\n{}", self.daemon_log());
        Ok(())
    }

    /// The daemon's process id.
    ///
    /// # Errors
    /// It does not run.
    pub fn daemon_pid(&self) -> Result<u32> {
        self.daemon.as_ref().map(Child::id).context("the daemon does not run")
    }

    /// The daemon's messages.
    pub fn daemon_log(&self) -> String {
        self.files.daemon_messages()
    }

    /// Where this stage keeps its files.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.files.socket()
    }

    /// What the API answers to `METHOD path` with `body`, a success or not.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Result<Reply> {
        self.api.ask(method, path, body)
    }

    /// The API's account of the host.
    pub fn host(&self) -> Result<HostStatus> {
        self.api.get("/v1/host")
    }

    /// The API's account of all VMs.
    pub fn vms(&self) -> Result<Vec<VmStatus>> {
        let vms: Vec<VmStatus> = self.api.get("/v1/vms")?;
        self.seen().extend(vms.iter().filter_map(|vm| vm.pid));
        Ok(vms)
    }

    /// The API's account of one VM.
    pub fn vm(&self, name: &str) -> Result<VmStatus> {
        let found = self.vms()?.into_iter().find(|vm| vm.name.as_str() == name);
        found.with_context(|| format!("the daemon does not list {name}"))
    }

    /// Sends `signal` to a VM's process. Returns its process id.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<u32> {
        let pid = self.vm(name)?.pid.with_context(|| format!("{name} has no process"))?;
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process id")?;
        rustix::process::kill_process(process, signal)
            .with_context(|| format!("sending {signal:?} to {name}"))?;
        Ok(pid)
    }

    /// Runs `plimsoll` with `arguments`, to its end.
    pub fn plimsoll(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command(arguments)?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().context("starting plimsoll")?;
        let pid = Pid::from_child(&child);
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        match receiver.recv_timeout(COMMAND_DEADLINE) {
            Ok(output) => output.context("waiting for plimsoll"),
            Err(_) => {
                // It may have ended this moment.
                rustix::process::kill_process(pid, Signal::KILL).ok();
                bail!("plimsoll {} did not end in {} s", arguments.join(" "), COMMAND_DEADLINE.as_secs())
            }
        }
    }

    /// Runs `plimsoll` with `arguments` to its end, which must be a success.
    pub fn succeed(&self, arguments: &[&str]) -> Result<Output> {
        let output = self.plimsoll(arguments)?;
        let why = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "plimsoll {}: {}", arguments.join(" "), why.trim());
        Ok(output)
    }

    /// A `plimsoll` command with `arguments`, for this stage's daemon, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(program("plimsoll")?);
        command.arg("--socket").arg(self.socket()).args(arguments).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs `plimsoll --json` with `arguments` and reads the facts that it prints.
    pub fn facts<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let what = format!("plimsoll {}", arguments.join(" "));
        let output = self.succeed(&[&["--json"], arguments].concat())?;
        serde_json::from_slice(&output.stdout).with_context(|| format!("reading the answer of {what}"))
    }

    /// Writes a definition down and runs it. Returns when the VMM runs its guest.
    pub fn run(&self, definition: &Definition) -> Result<()> {
        let file = self.path().join(format!("{}.toml", definition.name));
        fs::write(&file, definition.text()?)?;
        let output = self.plimsoll(&["run", &file.display().to_string(), "--wait"])?;
        // The process id is noted for the end.
        self.vms()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// Attaches to the console of a VM with `toucher` in it, and waits until that answers.
    pub fn toucher(&self, name: &str) -> Result<Toucher> {
        Toucher::attach(name, &self.vm(name)?.console)
            .with_context(|| format!("the console of {name} said last:\n{}", self.console_tail(name)))
    }

    /// The end of what a guest wrote to its console. It is read from the daemon's file: the daemon
    /// may be what has failed.
    pub fn console_tail(&self, name: &str) -> String {
        self.files.console_tail(name)
    }

    /// Waits until `condition` gives something, at most `limit`. A wait in vain ends with the
    /// [`Account`] of how things stand. `what` completes "timed out waiting until".
    pub fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = condition(self)? {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                let error = anyhow!("timed out after {} s waiting until {what}", limit.as_secs_f64());
                return Err(error.context(self.account()));
            }
            std::thread::sleep(TICK);
        }
    }

    /// `result`; where it is an error, with the [`Account`] of how things stand.
    pub fn explained<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match error.downcast_ref::<Account>() {
            Some(_) => error,
            None => error.context(self.account()),
        })
    }

    /// How things stand.
    pub fn account(&self) -> Account {
        let names = self.vms().map(|vms| vms.into_iter().map(|vm| vm.name.to_string()).collect());
        Account::of(&self.files, names, &|name| self.plimsoll(&["explain", name]))
    }

    /// Waits until the VM `name` is off and returns its last status.
    pub fn wait_off(&self, name: &str, limit: Duration) -> Result<VmStatus> {
        self.wait(&format!("{name} is off"), limit, |stage| {
            let vm = stage.vm(name)?;
            Ok((vm.power == Power::Off).then_some(vm))
        })
    }

    /// Waits until all of the host's memory is free. That which VMs shared is so within a period of
    /// the daemon's after they have ended.
    pub fn wait_free(&self) -> Result<HostStatus> {
        self.wait("all memory is free", Duration::from_secs(30), |stage| {
            let host = stage.host()?;
            Ok((host.granted == Bytes::ZERO && host.free == host.budget).then_some(host))
        })
    }

    fn seen(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        // A set of numbers is whole at every moment.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves everything running and its files in place; returns their directory.
    pub fn keep(mut self) -> PathBuf {
        self.daemon = None;
        self.seen().clear();
        self.directory.disable_cleanup(true);
        self.path().to_owned()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // A VMM that answers no more has been seen before.
        self.vms().ok();
        if self.daemon.is_some() {
            self.kill_daemon().ok();
        }
        for pid in self.seen().iter() {
            let is_ours = fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.starts_with("plimsoll-vmm"));
            if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw).filter(|_| is_ours) {
                rustix::process::kill_process(pid, Signal::KILL).ok();
            }
        }
    }
}
