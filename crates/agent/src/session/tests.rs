use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use plimsoll_protocol::agent::{CommandEnd, Execute};

use super::*;

/// The client of a session.
struct Peer {
    stream: UnixStream,
    frames: Frames<FromAgent>,
    session: JoinHandle<Result<(), Broken>>,
}

impl Peer {
    fn new() -> Self {
        Self::served_by(serve)
    }

    fn served_by(serve: impl FnOnce(OwnedFd) -> Result<(), Broken> + Send + 'static) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let session = thread::spawn(move || serve(theirs.into()));
        Self { stream: ours, frames: Frames::default(), session }
    }

    /// One that has asked for this command.
    fn of(command: &[&str]) -> Self {
        Self::new().asking(command, None)
    }

    fn asking(mut self, command: &[&str], directory: Option<&str>) -> Self {
        assert_eq!(self.hear(), FromAgent::Hello(AGENT_VERSION));
        self.say(&ToAgent::Hello(AGENT_VERSION));
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        self.say(&ToAgent::Execute(Execute { command, directory: directory.map(str::to_owned) }));
        self
    }

    fn say(&mut self, message: &ToAgent) {
        self.stream.write_all(&encode(message).unwrap()).unwrap();
    }

    fn hear(&mut self) -> FromAgent {
        loop {
            if let Some(message) = self.frames.take().unwrap() {
                return message;
            }
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).unwrap();
            assert!(count > 0, "the agent has hung up");
            self.frames.add(&bytes[..count]);
        }
    }

    /// All that the command writes, and the last message.
    fn hear_all(&mut self) -> (Vec<u8>, Vec<u8>, FromAgent) {
        let (mut out, mut error) = (Vec::new(), Vec::new());
        loop {
            match self.hear() {
                FromAgent::Output(OutputStream::Out, bytes) => out.extend(bytes),
                FromAgent::Output(OutputStream::Error, bytes) => error.extend(bytes),
                last => return (out, error, last),
            }
        }
    }

    /// The same, and the session's end.
    fn rest(mut self) -> (Vec<u8>, Vec<u8>, FromAgent) {
        let all = self.hear_all();
        drop(self.stream);
        self.session.join().unwrap().unwrap();
        all
    }
}

fn exited(status: u8) -> FromAgent {
    FromAgent::Ended(CommandEnd::Exited(status))
}

#[test]
fn a_command_is_run_with_its_two_outputs_and_its_status() {
    let peer = Peer::of(&["sh", "-c", "echo out; echo error >&2; pwd; exit 7"]);
    assert_eq!(peer.rest(), (b"out\n/\n".to_vec(), b"error\n".to_vec(), exited(7)));
    let killed = Peer::of(&["sh", "-c", "kill -9 $$"]).rest().2;
    assert_eq!(killed, FromAgent::Ended(CommandEnd::Killed(9)));
}

#[test]
fn input_goes_through_a_command_whole_however_slowly_each_side_reads() {
    let mut peer = Peer::of(&["cat"]);
    let bytes: Vec<u8> = (0..=250).cycle().take(3 << 20).collect();
    let mut to = peer.stream.try_clone().unwrap();
    let sent = bytes.clone();
    let writer = thread::spawn(move || {
        for piece in sent.chunks(MAX_DATA) {
            to.write_all(&encode(&ToAgent::Input(piece.to_vec())).unwrap()).unwrap();
        }
        to.write_all(&encode(&ToAgent::InputEnd).unwrap()).unwrap();
    });
    let (out, error, last) = peer.hear_all();
    writer.join().unwrap();
    assert_eq!((error, last), (Vec::new(), exited(0)));
    assert!(out == bytes);
}

#[test]
fn each_piece_of_input_reaches_the_command_without_another() {
    let mut peer = Peer::of(&["cat"]);
    for piece in [b"one".to_vec(), vec![2; MAX_DATA]] {
        peer.say(&ToAgent::Input(piece.clone()));
        let mut got = Vec::new();
        while got.len() < piece.len() {
            let FromAgent::Output(OutputStream::Out, bytes) = peer.hear() else { panic!("cat has ended") };
            got.extend(bytes);
        }
        assert_eq!(got, piece);
    }
    peer.say(&ToAgent::InputEnd);
    assert_eq!(peer.rest(), (Vec::new(), Vec::new(), exited(0)));
}

#[test]
fn a_command_that_reads_no_input_loses_it_and_one_left_behind_is_not_waited_for() {
    let mut peer = Peer::of(&["sh", "-c", "sleep 600 & echo $!; exit 3"]);
    // It may have ended before the input comes, which then is nobody's.
    rustix::net::send(&peer.stream, &encode(&ToAgent::Input(vec![1; 100])).unwrap(), SendFlags::NOSIGNAL)
        .ok();
    let (out, error, last) = peer.hear_all();
    assert_eq!((error, last), (Vec::new(), exited(3)));
    let left: i32 = String::from_utf8(out).unwrap().trim().parse().unwrap();
    let left = rustix::process::Pid::from_raw(left).unwrap();
    rustix::process::kill_process(left, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn what_cannot_be_run_is_told_with_what_is_missing() {
    for (command, directory, why) in [
        (&["/no/such"][..], None, "\"/no/such\" cannot be run: No such file"),
        (&["/no/such"], Some("/"), "\"/no/such\" cannot be run: No such file"),
        (&["ls"], Some("/nope"), "the directory \"/nope\" cannot be entered: No such file"),
        (&["ls"], Some("/dev/null"), "the directory \"/dev/null\" cannot be entered: Not a directory"),
        (&[], None, "there is no command"),
    ] {
        let peer = Peer::new().asking(command, directory);
        let FromAgent::Failed(text) = peer.rest().2 else { panic!("{command:?} ran") };
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn a_client_whose_command_is_refused_hears_why() {
    let peer = Peer::served_by(|socket| refuse(socket, "too many")).asking(&["true"], None);
    assert_eq!(peer.rest(), (Vec::new(), Vec::new(), FromAgent::Failed("too many".to_owned())));
}

#[test]
fn all_that_a_command_wrote_waits_for_a_client_that_does_not_read() {
    let timeouts = Timeouts { close: Duration::from_millis(50), ..TIMEOUTS };
    let peer = Peer::served_by(move |socket| {
        // The socket takes little of it: the rest stays with the agent.
        rustix::net::sockopt::set_socket_send_buffer_size(&socket, 1).unwrap();
        Client::new(socket, timeouts).serve(Running::start)
    });
    let mut peer = peer.asking(&["sh", "-c", "head -c 60000 /dev/zero; exit 3"], None);
    // A pager that nobody touches.
    thread::sleep(Duration::from_secs(1));
    let (out, error, last) = peer.hear_all();
    assert_eq!((out.len(), error.len(), last), (60_000, 0, exited(3)));
}

#[test]
fn a_client_that_leaves_without_having_read_all_is_noticed() {
    let peer = Peer::served_by(|socket| {
        rustix::net::sockopt::set_socket_send_buffer_size(&socket, 1).unwrap();
        Client::new(socket, TIMEOUTS).serve(Running::start)
    });
    let mut peer = peer.asking(&["sh", "-c", "head -c 60000 /dev/zero; exit 3"], None);
    // Its command has ended when the first of what it wrote has come, or a moment later.
    assert!(matches!(peer.hear(), FromAgent::Output(..)));
    drop(peer.stream);
    assert!(matches!(peer.session.join().unwrap(), Err(Broken::Left)));
}

/// Set in the process that the next test starts.
const IGNORES_CHILDREN: &str = "PLIMSOLL_TEST_IGNORES_CHILDREN";

#[test]
fn the_end_of_a_command_is_noticed_where_the_kernel_has_waited_for_it() {
    if std::env::var_os(IGNORES_CHILDREN).is_none() {
        let name = "session::tests::the_end_of_a_command_is_noticed_where_the_kernel_has_waited_for_it";
        let mut command = std::process::Command::new("env");
        command.arg("--ignore-signal=CHLD").arg(std::env::current_exe().unwrap());
        let output = command.args(["--exact", name]).env(IGNORES_CHILDREN, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let mut peer = Peer::of(&["cat"]);
    peer.say(&ToAgent::Input(b"text".to_vec()));
    peer.say(&ToAgent::InputEnd);
    let (out, _, last) = peer.rest();
    assert_eq!(out, b"text");
    assert!(matches!(&last, FromAgent::Failed(why) if why.contains("how cannot be told")), "{last:?}");
}

#[test]
fn a_client_that_leaves_ends_its_command_with_all_that_it_started() {
    let mut peer = Peer::of(&["sh", "-c", "sleep 600 & echo $!; wait"]);
    let FromAgent::Output(_, pid) = peer.hear() else { panic!("nothing was written") };
    let pid = String::from_utf8(pid).unwrap().trim().to_owned();
    drop(peer.stream);
    assert!(matches!(peer.session.join().unwrap(), Err(Broken::Left)));
    // It has been killed, and ends when it is next scheduled. It may stay as one that nobody has
    // waited for.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") || stat.contains(") X ") {
            break;
        }
        assert!(Instant::now() < deadline, "{stat}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// What a shell that does `words`, and then `touch ended`, has touched when its client has left.
fn touched(words: &str) -> Vec<String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("plimsoll-agent-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let place = std::env::temp_dir().join(name);
    std::fs::create_dir(&place).unwrap();
    let words = format!("trap 'touch cleaned; exit 1' HUP; echo ready; {words}; touch ended");
    // Not as the signal is for the tests, which nohup may have started.
    let command = ["env", "--default-signal=HUP", "sh", "-c", &words];
    let mut peer = Peer::new().asking(&command, Some(place.to_str().unwrap()));
    assert_eq!(peer.hear(), FromAgent::Output(OutputStream::Out, b"ready\n".to_vec()));
    peer.say(&ToAgent::Input(b"a part".to_vec()));
    drop(peer.stream);
    assert!(matches!(peer.session.join().unwrap(), Err(Broken::Left)));
    let names = std::fs::read_dir(&place).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    std::fs::remove_dir_all(&place).unwrap();
    names
}

#[test]
fn a_command_whose_client_leaves_may_clean_up_and_its_input_does_not_end_before() {
    assert_eq!(touched("cat"), ["cleaned"]);
}

#[test]
fn a_shell_whose_program_missed_the_signal_cleans_up_too() {
    // As one that was about to start it: the shell has the signal, and waits for the program.
    let misses_one = "sh -c 'trap \"trap - HUP; sleep 600\" HUP; sleep 600'";
    assert_eq!(touched(misses_one), ["cleaned"]);
}

#[test]
fn a_command_that_ignores_the_end_of_its_client_is_killed() {
    let mut peer = Peer::of(&["sh", "-c", "trap '' HUP; echo $$; sleep 600"]);
    let FromAgent::Output(_, pid) = peer.hear() else { panic!("nothing was written") };
    let pid = String::from_utf8(pid).unwrap().trim().parse().unwrap();
    drop(peer.stream);
    assert!(matches!(peer.session.join().unwrap(), Err(Broken::Left)));
    // It is a child of this process, and was waited for.
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    assert_eq!(rustix::process::test_kill_process(pid), Err(Errno::SRCH));
}

#[test]
fn clients_that_break_the_protocol_are_hung_up() {
    let first = |message: &ToAgent| {
        let mut peer = Peer::new();
        peer.say(message);
        peer
    };
    let other = first(&ToAgent::Hello(AGENT_VERSION + 1));
    let mut said = Vec::new();
    let mut peer = other;
    assert_eq!(peer.hear(), FromAgent::Hello(AGENT_VERSION));
    said.push(peer.hear());
    assert!(matches!(&said[..], [FromAgent::Failed(why)] if why.contains("version")), "{said:?}");
    for message in [ToAgent::InputEnd, ToAgent::Execute(Execute { command: vec![], directory: None })] {
        let peer = first(&message);
        assert!(matches!(peer.session.join().unwrap(), Err(Broken::Protocol(_))));
    }
    let mut peer = Peer::of(&["cat"]);
    peer.say(&ToAgent::Input(vec![0; MAX_DATA + 1]));
    assert!(matches!(peer.session.join().unwrap(), Err(Broken::Protocol(_))));
    let mut peer = Peer::new();
    peer.stream.write_all(&[0xff; 8]).unwrap();
    assert!(matches!(peer.session.join().unwrap(), Err(Broken::Protocol(_))));
}
