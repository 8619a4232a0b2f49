//! A daemon in a directory of its own, with a VMM that is no VMM (`examples/fake_vmm/`), driven
//! over its API.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "only tests use it")]

pub mod document;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use plimsoll_protocol::api::{ErrorBody, Event};
use plimsoll_protocol::status::{HostStatus, VmStatus};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take on a loaded machine. Nothing waits for it that goes right.
const DEADLINE: Duration = Duration::from_secs(60);

pub struct Host {
    pub directory: TempDir,
    daemon: Option<Child>,
    /// Processes of VMs that were created, for tests that damage run records.
    pids: RefCell<Vec<u32>>,
}

/// An answer: status and body.
pub type Reply = (u16, String);

/// An answer with the type of its body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    /// Without parameters.
    pub media: Option<String>,
    pub body: String,
}

impl Host {
    /// Starts a daemon with `budget` MiB, and `more` in its configuration.
    pub fn new(budget: u64, more: &str) -> Self {
        Self::logging("debug", budget, more)
    }

    /// The same; its log has messages of this level and above.
    pub fn logging(level: &str, budget: u64, more: &str) -> Self {
        let mut host =
            Self { directory: tempfile::tempdir().unwrap(), daemon: None, pids: RefCell::default() };
        let config = format!(
            "budget = '{budget}MiB'\nstate_directory = {:?}\nrun_directory = {:?}\nvmm = {:?}\nlog = '{level}'\n{more}",
            host.path("state"),
            host.path("run"),
            fake_vmm(),
        );
        std::fs::write(host.path("plimsolld.toml"), config).unwrap();
        host.start();
        host
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The command that runs the daemon, or a second one.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plimsolld"));
        command.arg("--config").arg(self.path("plimsolld.toml")).stdin(Stdio::null());
        command
    }

    /// Starts the daemon and waits until it answers.
    pub fn start(&mut self) {
        self.start_as(self.command());
    }

    /// The same, with at most `most` open files.
    pub fn start_with_open_files(&mut self, most: u32) {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\"")]);
        command.arg(self.command().get_program()).args(self.command().get_args()).stdin(Stdio::null());
        self.start_as(command);
    }

    fn start_as(&mut self, command: Command) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        self.start_with(command, log.into());
    }

    /// As [`Host::start`], with these variables in its environment.
    pub fn start_with_environment(&mut self, variables: &[(&str, &str)]) {
        let mut command = self.command();
        command.envs(variables.iter().copied());
        self.start_as(command);
    }

    /// As [`Host::start`], with `log` as standard error.
    pub fn start_with_log(&mut self, log: Stdio) {
        self.start_with(self.command(), log);
    }

    fn start_with(&mut self, mut command: Command, log: Stdio) {
        self.daemon = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let socket = self.path("run/plimsoll.sock");
        wait_until("the daemon answers", || {
            if let Some(status) = self.daemon.as_mut().unwrap().try_wait().unwrap() {
                panic!("plimsolld ended: {status}\n{}", self.log());
            }
            UnixStream::connect(&socket).ok().map(drop)
        });
        document::learn(|| sent(self.connect(), "GET", "/v1/openapi.json", "", ""));
    }

    /// Kills the daemon as a crash would.
    pub fn kill_daemon(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// Tells the daemon to end, and waits for that.
    pub fn terminate_daemon(&mut self) -> ExitStatus {
        let mut daemon = self.daemon.take().unwrap();
        send(daemon.id(), rustix::process::Signal::TERM);
        daemon.wait().unwrap()
    }

    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    /// Sends SIGHUP to the daemon: it reads its configuration again.
    pub fn hang_up(&self) {
        send(self.daemon_pid(), rustix::process::Signal::HUP);
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn ask(&self, method: &str, path: &str, body: &str) -> Reply {
        exchange(self.connect(), method, path, "", body)
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path("run/plimsoll.sock")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let (status, body) = self.ask("GET", path, "");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// The host's status, in which the account must add up.
    pub fn status(&self) -> HostStatus {
        let host: HostStatus = self.get("/v1/host");
        assert_eq!(host.budget, host.granted + host.overhead + host.frames + host.free);
        host
    }

    pub fn vm(&self, name: &str) -> VmStatus {
        self.get(&format!("/v1/vms/{name}"))
    }

    pub fn events(&self) -> Vec<Event> {
        self.get("/v1/events")
    }

    /// Creates a VM that must come to run.
    pub fn run(&self, name: &str, size: &str) -> VmStatus {
        let (status, body) = self.ask("POST", "/v1/vms", &definition(name, size).to_string());
        assert_eq!(status, 200, "{body}\n{}", self.log());
        let vm: VmStatus = serde_json::from_str(&body).unwrap();
        self.pids.borrow_mut().extend(vm.pid);
        vm
    }

    /// A VMM that listens at `socket` and that no daemon has configured.
    pub fn orphan(&self, vm: &str, socket: &Path) -> Child {
        let listener = rustix::net::socket_with(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        rustix::net::bind(&listener, &rustix::net::SocketAddrUnix::new(socket).unwrap()).unwrap();
        rustix::net::listen(&listener, 2).unwrap();
        let shell = format!("exec -a 'plimsoll-vmm {vm}' \"$0\" 3<&0 </dev/null");
        let mut command = Command::new("bash");
        command.args(["-c", &shell]).arg(fake_vmm()).stdin(Stdio::from(listener));
        command.spawn().unwrap()
    }

    /// The VM's run record.
    pub fn run_record(&self, name: &str) -> PathBuf {
        self.path("run/vms").join(name).join("run.json")
    }

    /// Waits until `condition` gives something of a VM.
    pub fn wait_for<T>(&self, name: &str, what: &str, condition: impl Fn(&VmStatus) -> Option<T>) -> T {
        wait_until_or(
            &format!("{name}: {what}"),
            || condition(&self.vm(name)),
            || {
                let log = self.log();
                let told: Vec<&str> = log.lines().filter(|line| !line.contains(" DEBUG ")).collect();
                format!("{:#?}\n{}", self.vm(name), told.join("\n"))
            },
        )
    }

    /// An error's text, which must be one line.
    pub fn refused(&self, status: u16, method: &str, path: &str, body: &str) -> String {
        let (got, body) = self.ask(method, path, body);
        assert_eq!(got, status, "{body}");
        let problem: ErrorBody = serde_json::from_str(&body).unwrap();
        assert_eq!((problem.status, &problem.detail), (status, &problem.error), "{problem:?}");
        assert!(
            problem.kind.starts_with("urn:plimsoll:problem:") && !problem.title.is_empty(),
            "{problem:?}"
        );
        error_of(&body)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
        // VMMs outlive their daemon. Those of this test are named in its run directory, as far as a
        // test has left that whole.
        let recorded = |entry: std::fs::DirEntry| {
            let text = std::fs::read_to_string(entry.path().join("run.json")).ok()?;
            serde_json::from_str::<Value>(&text).ok()?["pid"].as_u64()
        };
        let directory = std::fs::read_dir(self.path("run/vms")).into_iter().flatten().flatten();
        let recorded = directory.filter_map(recorded).filter_map(|pid| u32::try_from(pid).ok());
        for pid in recorded.chain(self.pids.borrow().iter().copied()) {
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if command.starts_with("plimsoll-vmm ") {
                signal(pid);
            }
        }
    }
}

pub fn error_of(body: &str) -> String {
    let error: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("no error body: {body:?}"));
    let text = error["error"].as_str().unwrap().to_owned();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// A definition of a model guest that may run without the parts of the jail that a test host may
/// lack.
pub fn definition(name: &str, size: &str) -> Value {
    json!({"name": name, "size": size, "boot": {"model": true}, "jail": {"allow_missing": ["uid", "cgroup"]}})
}

/// Asks, and checks that the answer is as the API describes itself.
pub fn exchange<S: Read + Write>(stream: S, method: &str, path: &str, header: &str, body: &str) -> Reply {
    let answer = answered(stream, method, path, header, body);
    (answer.status, answer.body)
}

/// The same, with the head of the answer.
pub fn answered<S: Read + Write>(stream: S, method: &str, path: &str, header: &str, body: &str) -> Answer {
    let answer = sent(stream, method, path, header, body);
    document::check(method, path, body, &answer);
    answer
}

/// Speaks just enough HTTP.
fn sent<S: Read + Write>(mut stream: S, method: &str, path: &str, header: &str, body: &str) -> Answer {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n{header}\r\n{body}",
        body.len()
    );
    // A server that refuses a large body may answer before it has read all of it.
    stream.write_all(request.as_bytes()).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    Answer::read(&String::from_utf8(answer).unwrap())
}

impl Answer {
    /// The answer whose head and body are `text`.
    pub fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Self { status, head: head.to_owned(), media: None, body: body.to_owned() };
        let kind = answer.header("content-type");
        answer.media = kind.and_then(|kind| Some(kind.split(';').next()?.trim().to_owned()));
        answer
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

pub fn exchange_tcp(address: &str, path: &str, header: &str) -> Reply {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    exchange(stream, "GET", path, header, "")
}

/// `kill -9`.
pub fn signal(pid: u32) {
    send(pid, rustix::process::Signal::KILL);
}

pub fn send(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).ok();
}

/// Whether a process is there and no zombie.
pub fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits until `condition` gives something.
pub fn wait_until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_until_or(what, condition, String::new)
}

/// The same; `why` is printed where it does not come.
fn wait_until_or<T>(what: &str, mut condition: impl FnMut() -> Option<T>, why: impl Fn() -> String) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}\n{}", why());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Cargo builds examples for tests and puts them beside the programs.
fn fake_vmm() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_plimsolld")).with_file_name("examples").join("fake_vmm")
}
