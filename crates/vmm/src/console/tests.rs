use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Mutex;
use std::time::Duration;

use plimsoll_sys::lock;
use rustix::event::{PollFd, PollFlags};

use super::*;

/// Takes a few bytes at a time and wants more only when told.
#[derive(Default)]
struct Slow {
    got: Mutex<Vec<u8>>,
}

impl Keyboard for Slow {
    fn offer(&self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(3);
        lock(&self.got).extend_from_slice(&bytes[..n]);
        n
    }
}

struct Bench {
    output: Arc<Output>,
    keyboard: Arc<Slow>,
    room: Event,
    console: Console,
    log: std::fs::File,
    path: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("console");
    let listener = UnixListener::bind(&path).unwrap();
    let log = tempfile::tempfile().unwrap();
    let output = Arc::new(Output::new().unwrap());
    let keyboard = Arc::new(Slow::default());
    let room = Event::new().unwrap();
    let console = Console::start(Ends {
        output: Arc::clone(&output),
        log: Some(ConsoleLog::new(log.try_clone().unwrap().into()).unwrap()),
        listener: Some(listener.into()),
        keyboard: Arc::clone(&keyboard) as Arc<dyn Keyboard>,
        room: room.clone(),
    })
    .unwrap();
    Bench { output, keyboard, room, console, log, path, _dir: dir }
}

fn attach(bench: &Bench) -> UnixStream {
    let client = UnixStream::connect(&bench.path).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client
}

/// Writes until the client hears it: it is attached then.
fn await_attached(bench: &Bench, client: &mut UnixStream) {
    client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut buffer = [0; 4096];
    let heard = (0..500).any(|_| {
        bench.output.write(b".");
        client.read(&mut buffer).is_ok_and(|n| n > 0)
    });
    assert!(heard, "the client never heard the guest");
    // Swallow the dots that are still on their way.
    bench.output.write(b"!");
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    loop {
        let n = client.read(&mut buffer).unwrap();
        if buffer[..n].contains(&b'!') {
            return;
        }
    }
}

#[test]
fn output_reaches_the_log_and_everybody_attached() {
    let bench = bench();
    let mut clients = [attach(&bench), attach(&bench)];
    for client in &mut clients {
        await_attached(&bench, client);
    }
    bench.output.write(b"hello\n");
    for client in &mut clients {
        let mut heard = Vec::new();
        while !heard.ends_with(b"hello\n") {
            let mut buffer = [0; 64];
            let n = client.read(&mut buffer).unwrap();
            assert!(n > 0);
            heard.extend_from_slice(&buffer[..n]);
        }
    }
    bench.output.write(b"last words");
    bench.console.finish();
    let mut text = String::new();
    std::io::Seek::rewind(&mut &bench.log).unwrap();
    (&bench.log).read_to_string(&mut text).unwrap();
    assert!(text.ends_with("last words"), "{text}");
}

#[test]
fn typing_reaches_the_guest_whole_and_in_order_at_its_own_pace() {
    let bench = bench();
    let mut client = attach(&bench);
    let text: Vec<u8> = (0..20_000u32).flat_map(|n| format!("{n} ").into_bytes()).collect();
    let expected = text.clone();
    let typist = std::thread::spawn(move || {
        client.write_all(&text).unwrap();
        client
    });
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while lock(&bench.keyboard.got).len() < expected.len() {
        assert!(std::time::Instant::now() < deadline, "typing got stuck");
        bench.room.signal();
        std::thread::yield_now();
    }
    assert!(*lock(&bench.keyboard.got) == expected);
    drop(typist.join().unwrap());
    bench.console.finish();
}

#[test]
fn a_client_that_is_one_too_many_is_told_so_and_there_is_room_after_one_has_left() {
    let bench = bench();
    let mut clients: Vec<_> = (0..MAX_CLIENTS).map(|_| attach(&bench)).collect();
    for client in &mut clients {
        await_attached(&bench, client);
    }
    for _ in 0..20 {
        let mut text = String::new();
        attach(&bench).read_to_string(&mut text).unwrap();
        assert_eq!(text, "plimsoll: 4 clients are attached to this console already\r\n");
    }
    drop(clients.pop());
    // It has left when the thread has seen it.
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let mut client = attach(&bench);
        client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        match client.read(&mut [0; 100]) {
            // It is told nothing, so it is attached.
            Err(error) => break assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            Ok(told) => assert!(told > 0 && std::time::Instant::now() < deadline, "nobody takes the place"),
        }
    }
    bench.console.finish();
}

#[test]
fn the_serial_port_signals_room_after_its_fifo_was_read() {
    use crate::bus::BusDevice;
    let room = Event::new().unwrap();
    let port = SerialPort::new(Arc::new(Output::new().unwrap()), room.clone()).unwrap();
    let taken = port.offer(&[b'x'; 100]);
    assert_eq!(taken, 64);
    assert_eq!(port.offer(b"y"), 0);
    assert!(!is_signalled(&room));
    for _ in 0..64 {
        let mut byte = [0];
        port.read(0, &mut byte);
        assert_eq!(byte, [b'x']);
    }
    assert!(is_signalled(&room));
    room.clear();
    assert_eq!(port.offer(b"y"), 1);
    port.reset();
    assert!(is_signalled(&room));
    room.clear();
    let mut wide = [0; 4];
    port.read(0, &mut wide);
    assert_eq!(wide, [0xff; 4], "only bytes can be read from a serial port");
}

fn is_signalled(event: &Event) -> bool {
    let now = rustix::event::Timespec::default();
    rustix::event::poll(&mut [PollFd::new(event, PollFlags::IN)], Some(&now)).unwrap() > 0
}
