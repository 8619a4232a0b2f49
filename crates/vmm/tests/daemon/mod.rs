//! A daemon for one VMM: it passes descriptors, grants what a fixed budget allows, and listens.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "only tests use it")]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use plimsoll_protocol::control::{
    BootConfig, CONTROL_FD, ExitReason, Facts, FdRole, FromVmm, GuestKind, SamplingConfig, ToVmm,
};
use plimsoll_protocol::definition::{Balloon, Bus, Cpu, JailPart};
use plimsoll_protocol::wire::{Wire, WireError};
use plimsoll_units::{Bytes, Pages};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Everything that is waited for happens within this time or never.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// One VMM, its console, and the grants that it was given.
pub struct Daemon {
    pub child: Child,
    socket: PathBuf,
    wire: Option<Wire>,
    console: Option<UnixStream>,
    pub said: String,
    /// Pages that may be granted at most.
    pub budget: Pages,
    /// Pages that are granted now.
    pub granted: Pages,
    pub peak: Pages,
    pub heard: VecDeque<FromVmm>,
    /// What was said of frames.
    pub frames: VecDeque<(FromVmm, Vec<OwnedFd>)>,
    wanted: Pages,
    _dir: tempfile::TempDir,
}

/// The program under test: where cargo says, or beside the example that uses this file.
fn program() -> PathBuf {
    match option_env!("CARGO_BIN_EXE_plimsoll-vmm") {
        Some(path) => path.into(),
        None => std::env::current_exe().unwrap().with_file_name("plimsoll-vmm"),
    }
}

/// A configuration that runs without a jail, so that any user can run the tests.
pub fn model_config(size: Bytes) -> BootConfig {
    BootConfig {
        name: "test".parse().unwrap(),
        size: Pages::ceil(size),
        vcpus: 1,
        cpu: Cpu::default(),
        cmdline: String::new(),
        guest: GuestKind::Model,
        bus: Bus::default(),
        disks: Vec::new(),
        nets: Vec::new(),
        vsock: None,
        balloon: Balloon::default(),
        grant: Pages::ZERO,
        huge_pages: true,
        store: Pages::ZERO,
        swap: None,
        sampling: SamplingConfig { samples: 100, period: Duration::from_secs(30) },
        uid: rustix::process::geteuid().is_root().then_some(54_321),
        allow_missing: vec![JailPart::Uid, JailPart::Filesystem],
        fds: Vec::new(),
    }
}

impl Daemon {
    /// Starts a VMM and boots `config` with the console's and userfaultfd's descriptors beside
    /// `fds`.
    pub fn start(config: BootConfig, fds: Vec<(FdRole, OwnedFd)>, budget: Bytes) -> Self {
        Self::start_with_log(config, fds, budget, None)
    }

    /// As [`Daemon::start`], with everything logged to `log` where there is one.
    pub fn start_with_log(
        mut config: BootConfig,
        fds: Vec<(FdRole, OwnedFd)>,
        budget: Bytes,
        log: Option<Stdio>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control");
        let console = dir.path().join("console");
        let listener =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&socket).unwrap()).unwrap();
        rustix::net::listen(&listener, 4).unwrap();
        let mut command = Command::new(program());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if let Some(log) = log {
            command.stderr(log).env(plimsoll_log::FILTER_VARIABLE, "trace");
        }
        // Away from the number that it is to have in the child: the duplicate there loses the flag
        // that closes it.
        let listener = rustix::io::fcntl_dupfd_cloexec(&listener, CONTROL_FD + 1).unwrap();
        let raw = listener.as_raw_fd();
        // SAFETY: both are descriptors of ours.
        let place = move || match unsafe { libc::dup2(raw, CONTROL_FD) } {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        };
        // SAFETY: the closure calls dup2, which is async-signal-safe, and nothing else.
        unsafe { command.pre_exec(place) };
        let child = command.spawn().unwrap();
        drop(listener);
        let mut fds = fds;
        let console_listener = UnixListener::bind(&console).unwrap();
        fds.push((FdRole::ConsoleListener, console_listener.into()));
        let client = UnixStream::connect(&console).unwrap();
        client.set_nonblocking(true).unwrap();
        let log = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(dir.path().join("log"))
            .unwrap();
        if !fds.iter().any(|(role, _)| *role == FdRole::ConsoleLog) {
            fds.push((FdRole::ConsoleLog, log.into()));
        }
        if let Ok(uffd) = File::options().read(true).write(true).open("/dev/userfaultfd") {
            fds.push((FdRole::Userfaultfd, uffd.into()));
        }
        config.fds = fds.iter().map(|(role, _)| *role).collect();
        let mut daemon = Self {
            child,
            socket,
            wire: None,
            console: Some(client),
            said: String::new(),
            budget: Pages::floor(budget),
            granted: config.grant,
            peak: config.grant,
            heard: VecDeque::new(),
            frames: VecDeque::new(),
            wanted: Pages::ZERO,
            _dir: dir,
        };
        daemon.connect();
        let borrowed: Vec<_> = fds.iter().map(|(_, fd)| fd.as_fd()).collect();
        daemon.wire().send(&ToVmm::Boot(Box::new(config)), &borrowed).unwrap();
        daemon
    }

    /// Connects, reads the `Hello` and takes its totals over. Returns its facts.
    pub fn connect(&mut self) -> Facts {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        rustix::net::connect(&socket, &SocketAddrUnix::new(&self.socket).unwrap()).unwrap();
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Recv,
            Some(DEADLINE),
        )
        .unwrap();
        let wire = Wire::new(socket);
        let FromVmm::Hello { version, facts } = wire.receive().unwrap().0 else {
            panic!("the VMM did not say Hello first");
        };
        assert_eq!(version, plimsoll_protocol::control::VERSION);
        self.wire = Some(wire);
        facts
    }

    /// Ends the connection as a killed daemon would.
    pub fn disconnect(&mut self) {
        self.wire = None;
        self.frames.clear();
    }

    pub fn is_away(&self) -> bool {
        self.wire.is_none()
    }

    pub fn wire(&self) -> &Wire {
        self.wire.as_ref().unwrap()
    }

    pub fn send(&self, message: &ToVmm) {
        self.wire().send(message, &[]).unwrap();
    }

    /// Reads what has come from console and VMM within a short while; answers wants.
    pub fn step(&mut self) {
        self.step_within(Duration::from_millis(50));
    }

    /// The same within so long at most.
    pub fn step_within(&mut self, time: Duration) {
        let mut fds = Vec::new();
        if let Some(wire) = &self.wire {
            fds.push(rustix::event::PollFd::new(wire, rustix::event::PollFlags::IN));
        }
        if let Some(console) = &self.console {
            fds.push(rustix::event::PollFd::new(console, rustix::event::PollFlags::IN));
        }
        let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
        rustix::event::poll(&mut fds, Some(&timeout)).unwrap();
        let ready = |fd: &rustix::event::PollFd<'_>| !fd.revents().is_empty();
        let control = self.wire.is_some() && ready(&fds[0]);
        if control {
            self.hear();
        }
        self.listen();
    }

    fn hear(&mut self) {
        match self.wire().receive::<FromVmm>() {
            Ok((message, fds)) => {
                match message {
                    FromVmm::LookUp { .. }
                    | FromVmm::Offer { .. }
                    | FromVmm::GiveBack { .. }
                    | FromVmm::Pool(_)
                    | FromVmm::Holds { .. } => return self.frames.push_back((message, fds)),
                    FromVmm::Want(pages) => {
                        self.wanted = pages;
                        if pages > Pages::ZERO {
                            self.grant();
                        }
                    }
                    FromVmm::Return(pages) => {
                        self.granted = self.granted.checked_sub(pages).expect("returned more than granted");
                    }
                    FromVmm::Notice(ref text) => eprintln!("notice: {text}"),
                    _ => {}
                }
                self.heard.push_back(message);
            }
            Err(WireError::Closed) => self.wire = None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Gives what is wanted as far as the budget goes.
    pub fn grant(&mut self) {
        let pages = Pages(self.wanted.0.min(self.budget.saturating_sub(self.granted).0));
        self.granted += pages;
        self.peak = self.peak.max(self.granted);
        self.send(&ToVmm::Grant(pages));
    }

    fn listen(&mut self) {
        let Some(console) = &mut self.console else { return };
        let mut buffer = [0; 4096];
        while let Ok(n) = console.read(&mut buffer) {
            if n == 0 {
                self.console = None;
                return;
            }
            self.said.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }

    pub fn type_line(&mut self, line: &str) {
        self.console.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Goes on until `done` finds what it looks for.
    pub fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        self.within(DEADLINE, what, &mut done)
    }

    pub fn within<T>(
        &mut self,
        time: Duration,
        what: &str,
        done: &mut dyn FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + time;
        loop {
            if let Some(found) = done(self) {
                return found;
            }
            if Instant::now() > deadline {
                panic!("{what}: not within {time:?}; heard {:?}\nconsole:\n{}", self.heard.back(), self.said);
            }
            self.step();
        }
    }

    /// Types a command and returns toucher's answer.
    pub fn command(&mut self, line: &str) -> String {
        self.listen();
        let from = self.said.len();
        self.type_line(line);
        self.until(line, |daemon| answer(&daemon.said[from..], line))
    }

    /// Waits for a line of toucher's that begins with `text`, from `from` on.
    pub fn until_said(&mut self, from: usize, text: &str) {
        self.until(text, |daemon| daemon.said[from..].contains(text).then_some(()));
    }

    pub fn facts(&mut self) -> Facts {
        self.heard.clear();
        self.send(&ToVmm::Query);
        self.until("report", |daemon| {
            daemon.heard.iter().find_map(|message| match message {
                FromVmm::Report(facts) => Some(*facts),
                _ => None,
            })
        })
    }

    /// Waits for the VMM's end.
    pub fn end(mut self) -> (ExitReason, ExitStatus) {
        let reason = self.until("exit", |daemon| {
            daemon.heard.iter().find_map(|message| match message {
                FromVmm::Exit(reason) => Some(reason.clone()),
                _ => None,
            })
        });
        let status = self.until("the process's end", |daemon| daemon.child.try_wait().unwrap());
        (reason, status)
    }
}

/// The first answer to `command` in what toucher said. The answer to an earlier command may still
/// come before it.
pub fn answer(said: &str, command: &str) -> Option<String> {
    let name = command.split(' ').next()?;
    let complete = &said[..said.rfind('\n')? + 1];
    complete
        .lines()
        .filter_map(|line| line.trim().strip_prefix("toucher: "))
        .find(|line| line.starts_with(&format!("ok {name}")) || line.starts_with("error "))
        .map(str::to_owned)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
