//! A flood of connections costs the daemon nothing that VMs and commands need.

#![allow(clippy::unwrap_used, reason = "only tests use it")]

mod host;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use host::{Host, error_of, exchange, exchange_tcp, wait_until};
use plimsoll_protocol::status::Power;

/// Sooner than the daemon gives up clients that send nothing (20 s), and far more than it needs.
const SOON: Duration = Duration::from_secs(18);

const HALF: &[u8] = b"POST /v1/vms HTTP/1.1\r\nhost: x\r\n";

fn open_files(host: &Host) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", host.daemon_pid())).unwrap().count()
}

#[test]
fn a_flood_of_half_sent_requests_keeps_nobody_out() {
    let mut host = Host::new(512, "");
    let token = host.path("token");
    std::fs::write(&token, "0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
    let config = host.path("plimsolld.toml");
    let tcp = format!("[tcp]\nlisten = '127.0.0.1:0'\ntoken_file = {token:?}\n");
    std::fs::write(&config, std::fs::read_to_string(&config).unwrap() + &tcp).unwrap();
    host.kill_daemon();
    host.start_with_open_files(256);
    let address = wait_until("the address is in the log", || {
        let (_, rest) = host.log().split_once("also on tcp ").map(|(a, b)| (a.to_owned(), b.to_owned()))?;
        rest.split_once(',').map(|(address, _)| address.to_owned())
    });
    let before = open_files(&host);
    // None of these has the token; 300 was enough to take all descriptors.
    let tcp: Vec<TcpStream> = (0..300)
        .filter_map(|_| {
            let mut stream = TcpStream::connect(&address).ok()?;
            stream.write_all(HALF).ok()?;
            Some(stream)
        })
        .collect();
    let socket = host.path("run/plimsoll.sock");
    let unix: Vec<UnixStream> = (0..300)
        .filter_map(|_| {
            let mut stream = UnixStream::connect(&socket).ok()?;
            stream.write_all(HALF).ok()?;
            Some(stream)
        })
        .collect();
    assert!(tcp.len() > 100 && unix.len() > 100, "that is no flood: {} {}", tcp.len(), unix.len());
    let begin = Instant::now();
    let vm = host.run("a", "64MiB");
    assert_eq!(vm.power, Power::On);
    host.status();
    assert!(begin.elapsed() < SOON, "others were waited for");
    wait_until("the daemon has closed what is too much", || (open_files(&host) < before + 64).then_some(()));
    let (status, body) = exchange_tcp(&address, "/v1/host", "authorization: Bearer 0123456789abcdef\r\n");
    assert_eq!(status, 200, "{body}");
    // The oldest has been closed for the others.
    let mut first = tcp.into_iter().next().unwrap();
    first.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert_eq!(first.read(&mut [0; 16]).unwrap_or(0), 0);
    assert_eq!(host.ask("POST", "/v1/vms/a/kill", "").0, 200);
}

#[test]
fn clients_that_ask_for_explanations_in_a_loop_are_answered_at_a_pace() {
    let host = Host::new(512, "");
    host.run("a", "64MiB");
    let (socket, begin) = (host.path("run/plimsoll.sock"), Instant::now());
    let asks = || {
        let mut answered = 0;
        while begin.elapsed() < Duration::from_secs(3) {
            let stream = UnixStream::connect(&socket).unwrap();
            match exchange(stream, "GET", "/v1/explain", "", "").0 {
                200 => answered += 1,
                // Two kinds of refusal: the pace, and too many connections.
                status => assert!(matches!(status, 429 | 503), "{status}"),
            }
        }
        answered
    };
    let answered: u64 = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..32).map(|_| scope.spawn(asks)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    // A hundred at once, and fifty a second.
    let most = 100 + 50 * (begin.elapsed().as_secs() + 1);
    assert!((1..=most).contains(&answered), "{answered} of {most}");
    host.status();
}

#[test]
fn vms_leave_descriptors_to_requests_and_requests_to_vms() {
    let mut host = Host::new(512, "");
    host.kill_daemon();
    host.start_with_open_files(64);
    let mut refused = None;
    for n in 0..20 {
        let definition = host::definition(&format!("vm{n}"), "64MiB");
        let (status, body) = host.ask("POST", "/v1/vms", &definition.to_string());
        if status != 200 {
            refused = Some((n, error_of(&body)));
            break;
        }
    }
    let (started, error) = refused.unwrap();
    assert!(started >= 1 && error.contains("too few files open (64)"), "{started} {error}");
    let socket = host.path("run/plimsoll.sock");
    let flood: Vec<UnixStream> = (0..100).filter_map(|_| UnixStream::connect(&socket).ok()).collect();
    let begin = Instant::now();
    host.status();
    assert!(begin.elapsed() < SOON, "others were waited for");
    drop(flood);
    assert_eq!(host.ask("POST", "/v1/vms/vm0/kill", "").0, 200);
    host.run("again", "64MiB");
}
