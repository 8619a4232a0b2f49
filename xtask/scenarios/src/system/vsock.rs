//! Sockets between guest and host, with Linux's own driver in the guest, on either bus: a thousand
//! connections at a time, much data each way, a program that does not read, a daemon that is
//! restarted, a guest that reboots; commands and copies by the agent.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::{note, step};
use plimsoll_operate::Stage;
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::toucher::Toucher;
use plimsoll_protocol::definition::Bus;
use plimsoll_units::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::guests::Guests;

const LIMIT: Duration = Duration::from_secs(120);
/// Where the guest sends back what it is sent, and where the host does.
const GUEST_PORT: u32 = 2000;
const HOST_PORT: u32 = 5000;
const CONNECTIONS: usize = 1000;
/// Bytes through each of them, and through one alone.
const EACH: usize = 4 << 10;
const LONG: usize = 64 << 20;
const PIECE: usize = 64 << 10;
/// Bytes of a file that is copied.
const COPIED: usize = 1 << 20;

pub(super) fn run(_: Guests) -> Result<()> {
    // Each connection has a descriptor here.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let mut stage = Stage::open(Bytes::mib(640))?;
    let result = [Bus::Mmio, Bus::Pci].into_iter().try_for_each(|bus| on(&mut stage, bus));
    stage.explained(result)
}

fn on(stage: &mut Stage, bus: Bus) -> Result<()> {
    let name = format!("vsock-{bus}");
    step(&format!("a guest with sockets on {bus}"));
    let mut definition = Definition::new(&name, Bytes::mib(256), Runs::Toucher(Version::V6_12));
    definition.bus = bus;
    definition.vsock = Some("connections = 1024\nagent = true\n".to_owned());
    stage.run(&definition)?;
    let mut toucher = stage.toucher(&name)?;
    let socket = stage.vm(&name)?.vsock.context("the VM has no socket")?;
    toucher.ask(&format!("echo {GUEST_PORT}"), LIMIT)?;

    step("commands in the guest, and files to it and from it");
    commands(stage, &name, &mut toucher)?;

    step(&format!("{CONNECTIONS} connections at a time"));
    let mut all = Vec::new();
    for index in 0..CONNECTIONS {
        all.push(connect(&socket).with_context(|| format!("connection {index}"))?);
    }
    for (index, stream) in all.iter_mut().enumerate() {
        stream.write_all(&pattern(index, 0, EACH))?;
    }
    for (index, stream) in all.iter_mut().enumerate() {
        echoed(stream, index, 0, EACH).with_context(|| format!("connection {index}"))?;
    }

    step("a program that does not read stops its own connection only");
    let mut stuck = all.swap_remove(0);
    let given = fill(&mut stuck)?;
    note(&format!("{} wait for it", Bytes(given as u64)));
    let other = &mut all[0];
    for round in 0..20 {
        other.write_all(&pattern(7, round * EACH, EACH))?;
        echoed(other, 7, round * EACH, EACH)?;
    }
    echoed(&mut stuck, 1, 0, given)?;
    drop((all, stuck));

    step(&format!("{} each way through one connection", Bytes(LONG as u64)));
    let began = Instant::now();
    through(connect(&socket)?)?;
    note(&format!("{:.1} s", began.elapsed().as_secs_f64()));

    step("the guest reaches a program of the host, also after the daemon was restarted");
    let mut path = socket.clone().into_os_string();
    path.push(format!("_{HOST_PORT}"));
    let listener = UnixListener::bind(&path).context("listening for the guest")?;
    thread::spawn(move || {
        listener.incoming().flatten().for_each(|stream| drop(thread::spawn(|| echo(stream))))
    });
    let mut open = connect(&socket)?;
    for restart in [false, true] {
        if restart {
            stage.kill_daemon()?;
            let refused = toucher.ask(&format!("call {HOST_PORT} 1"), LIMIT);
            ensure!(refused.is_err(), "a guest reaches the host without a daemon");
            stage.start_daemon()?;
        }
        let answer = toucher.ask(&format!("call {HOST_PORT} {}", 1 << 20), LIMIT)?;
        ensure!(answer.number("bytes")? == 1 << 20 && answer.number("mismatched")? == 0, "{}", answer.text());
    }
    open.write_all(&pattern(9, 0, EACH))?;
    echoed(&mut open, 9, 0, EACH).context("a connection from before the restart")?;
    let refused = toucher.ask(&format!("call {} 1", HOST_PORT + 1), LIMIT);
    ensure!(refused.is_err(), "a port without a program answers");

    step("a reboot ends all connections");
    toucher.send("reboot")?;
    open.set_read_timeout(Some(LIMIT))?;
    let ended = open.read(&mut [0; 1]).map_or(true, |count| count == 0);
    ensure!(ended, "a connection of the guest before the reboot goes on");
    toucher.greet(LIMIT)?;
    toucher.ask(&format!("echo {GUEST_PORT}"), LIMIT)?;
    let mut stream = connect(&socket)?;
    stream.write_all(&pattern(1, 0, EACH))?;
    echoed(&mut stream, 1, 0, EACH)?;
    stage.succeed(&["stop", &name])?;
    stage.wait_off(&name, LIMIT).map(drop)
}

/// Starts the agent in the guest, from its disk, and uses it.
fn commands(stage: &Stage, name: &str, toucher: &mut Toucher) -> Result<()> {
    let start = "cat /dev/vda > /agent && chmod 755 /agent && (/agent > /dev/null 2>&1 &)";
    let started = toucher.ask(&format!("run {start}"), LIMIT)?;
    ensure!(started.number("status")? == 0, "{}", started.text());
    // It listens a moment after it was started.
    stage.wait("the agent answers", LIMIT, |stage| {
        Ok(stage.plimsoll(&["exec", name, "--", "true"])?.status.success().then_some(()))
    })?;
    let said = stage.plimsoll(&["exec", name, "--", "sh", "-c", "echo out; echo error >&2; exit 7"])?;
    ensure!(
        (said.status.code(), &said.stdout[..], &said.stderr[..]) == (Some(7), b"out\n", b"error\n"),
        "plimsoll exec: {said:?}"
    );
    let (file, back) = (stage.path().join("sent"), stage.path().join("back"));
    fs::write(&file, pattern(5, 0, COPIED))?;
    let (file, back) = (file.display().to_string(), back.display().to_string());
    // The second copy takes the place of the first.
    for _ in 0..2 {
        stage.succeed(&["cp", &file, &format!("{name}:/sent")])?;
        stage.succeed(&["cp", &format!("{name}:/sent"), &back])?;
        ensure!(fs::read(&back)? == pattern(5, 0, COPIED), "another file came back than was sent");
    }
    let missing = stage.plimsoll(&["cp", &format!("{name}:/none"), &back])?;
    ensure!(!missing.status.success() && fs::read(&back)?.len() == COPIED, "{missing:?}");
    Ok(())
}

/// Connects to the guest's echo.
fn connect(socket: &Path) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).context("connecting")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(format!("CONNECT {GUEST_PORT}\n").as_bytes())?;
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).context("the guest refuses")?;
        line.extend(byte);
    }
    ensure!(line.starts_with(b"OK "), "the VMM answered {:?}", String::from_utf8_lossy(&line));
    Ok(stream)
}

/// Reads `length` bytes of the stream of `seed` from `at` on.
fn echoed(stream: &mut UnixStream, seed: usize, at: usize, length: usize) -> Result<()> {
    let mut got = vec![0; length];
    stream.read_exact(&mut got)?;
    ensure!(got == pattern(seed, at, length), "other bytes came back than were sent");
    Ok(())
}

/// Sends the stream of seed 1 until nothing is taken any more. Returns how many bytes were.
fn fill(stream: &mut UnixStream) -> Result<usize> {
    stream.set_nonblocking(true)?;
    let (mut given, mut last) = (0, Instant::now());
    while last.elapsed() < Duration::from_secs(2) {
        match stream.write(&pattern(1, given, EACH)) {
            Ok(count) => (given, last) = (given + count, Instant::now()),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
        ensure!(given < LONG, "a guest that is not read has taken {}", Bytes(given as u64));
    }
    stream.set_nonblocking(false)?;
    Ok(given)
}

/// Sends and reads [`LONG`] bytes at a time.
fn through(stream: UnixStream) -> Result<()> {
    let mut writes = stream.try_clone()?;
    let writer = thread::spawn(move || -> Result<()> {
        for at in (0..LONG).step_by(PIECE) {
            writes.write_all(&pattern(3, at, PIECE))?;
        }
        Ok(())
    });
    let mut reads = stream;
    for at in (0..LONG).step_by(PIECE) {
        echoed(&mut reads, 3, at, PIECE).with_context(|| format!("from byte {at} on"))?;
    }
    writer.join().map_err(|_| anyhow!("the thread that sends has failed"))?
}

fn echo(mut stream: UnixStream) {
    let mut buffer = vec![0; PIECE];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// Bytes `at` and on of a stream that differs between seeds.
fn pattern(seed: usize, at: usize, length: usize) -> Vec<u8> {
    let byte = |place: usize| (place.wrapping_mul(31).wrapping_add(place >> 8) ^ seed).to_le_bytes()[0];
    (at..at + length).map(byte).collect()
}
