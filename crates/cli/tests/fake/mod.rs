//! A daemon that answers from a script, and the command under test.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A request line, and each answer that is left for it: status, more headers, body.
type Answers = Vec<(String, VecDeque<(u16, String, String)>)>;

/// Takes connections until the test's process ends. Each request line is answered by the first
/// answer that is left for it; the last one stays.
pub(crate) struct Fake {
    directory: TempDir,
    answers: Arc<Mutex<Answers>>,
    requests: Arc<Mutex<Vec<(String, String)>>>,
    /// The headers of the last request, in lower case.
    headers: Arc<Mutex<String>>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("sock")).unwrap();
        let fake =
            Self { directory, answers: Arc::default(), requests: Arc::default(), headers: Arc::default() };
        let (answers, requests) = (fake.answers.clone(), fake.requests.clone());
        let last = fake.headers.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                serve(stream, |line, headers, body| {
                    *last.lock().unwrap() = headers;
                    requests.lock().unwrap().push((line.to_owned(), body));
                    let mut answers = answers.lock().unwrap();
                    match answers.iter_mut().find(|(known, _)| known == line) {
                        Some((_, queue)) if queue.len() > 1 => queue.pop_front().unwrap(),
                        Some((_, queue)) => queue[0].clone(),
                        None => {
                            let text = format!("no answer for {line}");
                            (404, String::new(), error(&text).to_string())
                        }
                    }
                });
            }
        });
        fake
    }

    /// Answers `line` ("GET /v1/vms") once more, after what it was told before.
    pub(crate) fn on(&self, line: &str, status: u16, body: &Value) -> &Self {
        self.on_text(line, status, &body.to_string())
    }

    pub(crate) fn on_text(&self, line: &str, status: u16, body: &str) -> &Self {
        self.on_with(line, status, "", body)
    }

    /// The same with one more header, `NAME: VALUE`.
    pub(crate) fn on_with(&self, line: &str, status: u16, header: &str, body: &str) -> &Self {
        let mut answers = self.answers.lock().unwrap();
        let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
        let answer = (status, header, body.to_owned());
        match answers.iter_mut().find(|(known, _)| known == line) {
            Some((_, queue)) => queue.push_back(answer),
            None => answers.push((line.to_owned(), VecDeque::from([answer]))),
        }
        self
    }

    /// What was asked so far: request lines and bodies.
    pub(crate) fn requests(&self) -> Vec<(String, String)> {
        self.requests.lock().unwrap().clone()
    }

    /// A header of the last request.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let headers = self.headers.lock().unwrap();
        headers.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned()))
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests().into_iter().map(|(line, _)| line).collect()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = plimsoll(args);
        command.arg("--socket").arg(self.path("sock"));
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        Done::new(&self.command(args).output().unwrap())
    }
}

fn serve(stream: UnixStream, answer: impl FnOnce(&str, String, String) -> (u16, String, String)) {
    let mut reader = BufReader::new(&stream);
    let mut first = String::new();
    if reader.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    let line = first.rsplit_once(" HTTP/").unwrap().0.to_owned();
    let (mut length, mut headers) = (0, String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        if header.trim().is_empty() {
            break;
        }
        let header = header.to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        headers += &header;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let (status, header, text) = answer(&line, headers, String::from_utf8(body).unwrap());
    let length = text.len();
    write!(
        &stream,
        "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{header}connection: close\r\n\r\n{text}"
    )
    .unwrap();
}

/// The command with `args`, without a terminal.
pub(crate) fn plimsoll(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command.args(args).stdin(Stdio::null()).env_remove("PLIMSOLL_SOCKET");
    command
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    pub(crate) fn new(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// It failed with exactly this exit status and line, and printed nothing else.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, line: &str) {
        assert_eq!(
            (self.code, self.out.as_str(), self.err.as_str()),
            (code, "", format!("plimsoll: {line}\n").as_str())
        );
    }

    #[track_caller]
    pub(crate) fn prints(&self, text: &str) {
        assert_eq!((self.code, self.out.as_str(), self.err.as_str()), (0, text, ""));
    }
}

/// A VM's status as the daemon tells it.
pub(crate) fn vm(name: &str, power: &str) -> Value {
    let mut vm = json!({
        "name": name, "power": power, "model": false, "vcpus": 1, "size": 256 << 20, "reservation": 0,
        "limit": 256 << 20, "shares": "normal", "share_count": 2560, "grant": 0, "overhead": 0, "held": 0,
        "kernel": 0, "wanted": 0, "active": 0, "entitlement": 0, "target": 0, "ballooned": 0,
        "balloon_target": 0, "balloon": "absent", "chunks": {"empty": 128, "large": 0, "small": 0},
        "faults": 0, "reboots": 0, "console": "/nonexistent/console"
    });
    if power == "off" {
        vm["exit"] = json!({"told": "shutdown"});
    }
    vm
}

pub(crate) fn error(text: &str) -> Value {
    json!({ "error": text })
}
