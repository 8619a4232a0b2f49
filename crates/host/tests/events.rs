//! Events in pages and as they happen.

#![allow(clippy::unwrap_used, reason = "only tests use it")]

mod host;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use host::document::document;
use host::{Host, wait_until};
use plimsoll_protocol::api::Event;

/// A client that follows the events.
struct Follower(BufReader<UnixStream>);

impl Follower {
    fn new(host: &Host, more: &str) -> Self {
        let mut stream = UnixStream::connect(host.path("run/plimsoll.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let accept = "accept: text/event-stream";
        write!(stream, "GET /v1/events HTTP/1.1\r\nhost: x\r\n{accept}\r\n{more}\r\n").unwrap();
        Self(BufReader::new(stream))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
        line
    }

    /// The next event, and the id that the stream gives it.
    fn next(&mut self) -> (u64, Event) {
        let mut id = None;
        loop {
            let line = self.line();
            if let Some(told) = line.strip_prefix("id: ") {
                id = told.trim().parse().ok();
            } else if let Some(data) = line.strip_prefix("data: ") {
                document().check_event("/v1/events", data);
                let event: Event = serde_json::from_str(data).unwrap();
                return (id.take().unwrap_or(event.id), event);
            }
        }
    }
}

#[test]
fn a_follower_hears_what_happens_and_goes_on_where_it_was() {
    let mut host = Host::new(512, "");
    let mut follower = Follower::new(&host, "");
    assert!(follower.line().contains(" 200 "));
    host.run("a", "64MiB");
    let runs = loop {
        let (id, event) = follower.next();
        assert_eq!(id, event.id);
        if event.text == "runs" {
            break event;
        }
    };
    let last = host.events().last().unwrap().id;
    assert!(runs.id <= last);
    assert_eq!(host.ask("POST", "/v1/vms/a/kill", "").0, 200);
    assert_eq!(follower.next().1.id, runs.id + 1, "nothing is left out");
    // Ids outlive the daemon, and so does what a client has seen.
    let file = host.path("state/events.jsonl");
    let line = format!("{{\"id\":{},", runs.id + 1);
    wait_until("it is on disk", || std::fs::read_to_string(&file).ok()?.contains(&line).then_some(()));
    host.kill_daemon();
    host.start();
    let mut again = Follower::new(&host, &format!("last-event-id: {}\r\n", runs.id));
    assert_eq!(again.next().1.id, runs.id + 1);
}

#[test]
fn pages_of_events_are_the_whole() {
    let host = Host::new(512, "");
    host.run("a", "64MiB");
    assert_eq!(host.ask("POST", "/v1/vms/a/kill", "").0, 200);
    let all = host.events();
    assert!(all.len() > 3);
    let mut forth: Vec<Event> = Vec::new();
    loop {
        let after = forth.last().map_or(0, |event| event.id);
        let page: Vec<Event> = host.get(&format!("/v1/events?after={after}&limit=2"));
        assert!(page.len() <= 2);
        if page.is_empty() {
            break;
        }
        forth.extend(page);
    }
    assert_eq!(forth, all);
    let latest: Vec<Event> = host.get("/v1/events?limit=2");
    assert_eq!(latest, all[all.len() - 2..]);
    let before: Vec<Event> = host.get(&format!("/v1/events?before={}&limit=1", latest[0].id));
    assert_eq!(before, all[all.len() - 3..all.len() - 2]);
    host.refused(400, "GET", "/v1/events?limit=0", "");
}
