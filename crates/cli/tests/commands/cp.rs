//! Copies, with an agent that does what the test says.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use plimsoll_protocol::agent::{
    AGENT_VERSION, CommandEnd, Execute, Frames, FromAgent, OutputStream, ToAgent, encode,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::fake::{Done, Fake, vm};

/// The agent's end of a connection.
struct Agent {
    stream: UnixStream,
    frames: Frames<ToAgent>,
}

impl Agent {
    fn say(&mut self, message: &FromAgent) {
        self.stream.write_all(&encode(message).unwrap()).unwrap();
    }

    /// The next message; `None`: the client has left.
    fn hear(&mut self) -> Option<ToAgent> {
        loop {
            if let Some(message) = self.frames.take().unwrap() {
                return Some(message);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes).unwrap() {
                0 => return None,
                count => self.frames.add(&bytes[..count]),
            }
        }
    }
}

/// VM `a` with a guest whose agent is asked for one command, which is given to `agent`.
fn with_agent<T: Send + 'static>(
    fake: &Fake,
    agent: impl FnOnce(&mut Agent, Execute) -> T + Send + 'static,
) -> JoinHandle<T> {
    let path = fake.path("vsock.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut vm = vm("a", "on");
    vm["vsock"] = json!(path);
    fake.on("GET /v1/vms/a", 200, &vm);
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut line = [0; 13];
        stream.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"CONNECT 1011\n");
        stream.write_all(b"OK 1073741825\n").unwrap();
        let mut it = Agent { stream, frames: Frames::default() };
        it.say(&FromAgent::Hello(AGENT_VERSION));
        assert_eq!(it.hear(), Some(ToAgent::Hello(AGENT_VERSION)));
        let command = it.hear().and_then(|message| match message {
            ToAgent::Execute(command) => Some(command),
            _ => None,
        });
        agent(&mut it, command.unwrap())
    })
}

/// The agent of a guest with a file of this content.
fn with_file(fake: &Fake, content: &'static [u8]) -> JoinHandle<Vec<String>> {
    with_agent(fake, move |agent, execute| {
        agent.say(&FromAgent::Output(OutputStream::Out, content.to_vec()));
        agent.say(&FromAgent::Ended(CommandEnd::Exited(0)));
        execute.command
    })
}

fn names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Waits until `child` has a file in `directory` open, whose name nobody sees, with `length` bytes.
fn part(child: &Child, directory: &Path, length: u64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let open = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().flatten().map(|fd| fd.path());
        let mut files = open.filter(|fd| fd.read_link().is_ok_and(|file| file.starts_with(directory)));
        if files.any(|file| file.metadata().is_ok_and(|file| file.len() == length)) {
            return;
        }
        assert!(Instant::now() < deadline, "no part of the file comes");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_fetched_file_has_the_mode_of_a_new_file() {
    for (umask, mode) in [("022", 0o644), ("077", 0o600), ("002", 0o664)] {
        let fake = Fake::new();
        let agent = with_file(&fake, b"content");
        let to = fake.path("fetched");
        let plain = fake.command(&["cp", "a:/srv/file", to.to_str().unwrap()]);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")]);
        command.arg(plain.get_program()).args(plain.get_args());
        Done::new(&command.output().unwrap()).prints("");
        assert_eq!(agent.join().unwrap(), ["cat", "--", "/srv/file"]);
        assert_eq!(fs::read(&to).unwrap(), b"content");
        assert_eq!(to.metadata().unwrap().mode() & 0o7777, mode, "umask {umask}");
    }
}

#[test]
fn a_fetched_file_replaces_no_device_and_no_pipe_but_a_link_itself() {
    let fake = Fake::new();
    let fifo = fake.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let why = format!("{}: it is not a regular file, and is left as it is", fifo.display());
    fake.run(&["cp", "a:/file", fifo.to_str().unwrap()]).fails(1, &why);
    assert!(fifo.symlink_metadata().unwrap().file_type().is_fifo());
    assert_eq!(fake.lines(), [""; 0], "the guest is not asked");

    let (target, link) = (fake.path("target"), fake.path("link"));
    fs::write(&target, "old").unwrap();
    symlink(&target, &link).unwrap();
    let agent = with_file(&fake, b"new");
    fake.run(&["cp", "a:/file", link.to_str().unwrap()]).prints("");
    agent.join().unwrap();
    assert!(link.symlink_metadata().unwrap().is_file());
    assert_eq!((fs::read(&link).unwrap(), fs::read(&target).unwrap()), (b"new".to_vec(), b"old".to_vec()));
}

#[test]
fn a_fetch_that_fails_or_is_interrupted_leaves_what_was_there() {
    let fake = Fake::new();
    let place = fake.path("place");
    fs::create_dir(&place).unwrap();
    let to = place.join("file");
    fs::write(&to, "old").unwrap();
    let agent = with_agent(&fake, |agent, _| {
        agent.say(&FromAgent::Output(OutputStream::Out, b"a part".to_vec()));
        agent.say(&FromAgent::Output(OutputStream::Error, b"cat: /file: Input/output error\n".to_vec()));
        agent.say(&FromAgent::Ended(CommandEnd::Exited(1)));
    });
    let why = "a:/file: cat: /file: Input/output error";
    fake.run(&["cp", "a:/file", to.to_str().unwrap()]).fails(1, why);
    agent.join().unwrap();
    assert_eq!((names(&place), fs::read(&to).unwrap()), (vec!["file".to_owned()], b"old".to_vec()));

    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        fs::remove_file(fake.path("vsock.sock")).unwrap();
        let agent = with_agent(&fake, |agent, _| {
            agent.say(&FromAgent::Output(OutputStream::Out, b"a part".to_vec()));
            // Until it is interrupted.
            while agent.hear().is_some() {}
        });
        let plain = fake.command(&["cp", "a:/file", to.to_str().unwrap()]);
        let mut command = Command::new("env");
        // Not as they are for the tests, which nohup or a shell's & may have started.
        command.arg("--default-signal=HUP,INT,TERM").arg(plain.get_program()).args(plain.get_args());
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        part(&child, &place, 6);
        kill_process(Pid::from_child(&child), signal).unwrap();
        // As by the signal itself: a script in a shell ends with it.
        assert_eq!(child.wait().unwrap().signal(), Some(signal.as_raw()));
        agent.join().unwrap();
        assert_eq!((names(&place), fs::read(&to).unwrap()), (vec!["file".to_owned()], b"old".to_vec()));
    }
}

#[test]
fn a_copy_goes_on_after_its_terminal_where_nohup_has_started_it() {
    let fake = Fake::new();
    let place = fake.path("place");
    fs::create_dir(&place).unwrap();
    let (interrupted, wait) = std::sync::mpsc::channel();
    let agent = with_agent(&fake, move |agent, _| {
        agent.say(&FromAgent::Output(OutputStream::Out, b"a part".to_vec()));
        wait.recv().unwrap();
        agent.say(&FromAgent::Ended(CommandEnd::Exited(0)));
    });
    let plain = fake.command(&["cp", "a:/file", place.to_str().unwrap()]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(plain.get_program()).args(plain.get_args());
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    part(&child, &place, 6);
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    interrupted.send(()).unwrap();
    assert!(child.wait().unwrap().success());
    agent.join().unwrap();
    assert_eq!(names(&place), ["file"]);
}

#[test]
fn what_is_sent_ends_with_its_mark_and_a_directory_is_not_sent() {
    let fake = Fake::new();
    let (file, directory) = (fake.path("file"), fake.path("directory"));
    fs::write(&file, "content").unwrap();
    fs::create_dir(&directory).unwrap();
    let why = format!("{}: it is a directory; cp copies one file", directory.display());
    fake.run(&["cp", directory.to_str().unwrap(), "a:/srv/file"]).fails(1, &why);
    assert_eq!(fake.lines(), [""; 0], "the guest is not asked");

    let agent = with_agent(&fake, |agent, execute| {
        let mut sent = Vec::new();
        while let Some(ToAgent::Input(bytes)) = agent.hear() {
            sent.extend(bytes);
        }
        agent.say(&FromAgent::Ended(CommandEnd::Exited(0)));
        (execute.command, sent)
    });
    fake.run(&["cp", file.to_str().unwrap(), "a:/srv/"]).prints("");
    let (command, sent) = agent.join().unwrap();
    assert_eq!((&command[4..6], command.len()), (&["/srv/".to_owned(), "file".to_owned()][..], 7));
    assert_eq!(String::from_utf8(sent).unwrap(), format!("content{}", command[6]));
}

#[test]
fn a_guest_that_cannot_answer_is_told_with_what_to_do() {
    let to = tempfile::tempdir().unwrap();
    let refused = |status: &serde_json::Value, why: &str| {
        let fake = Fake::new();
        fake.on("GET /v1/vms/a", 200, status);
        fake.run(&["cp", "a:/file", to.path().to_str().unwrap()]).fails(4, &format!("a:/file: {why}"));
        assert!(names(to.path()).is_empty());
    };
    let mut a = vm("a", "on");
    refused(&a, "a has no vsock: add [vsock] to its definition with plimsoll edit a, and restart it");
    a["vsock"] = json!("/nonexistent/vsock.sock");
    for (power, what) in [("off", "start"), ("paused", "resume")] {
        a["power"] = json!(power);
        refused(&a, &format!("a is {power}: plimsoll {what} a"));
    }
}
