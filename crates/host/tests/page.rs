//! The web page, the token that permits to look, and the live state.

#![allow(clippy::unwrap_used, reason = "only tests use it")]

mod host;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use host::document::document;
use host::{Answer, Host, error_of, exchange, wait_until};
use serde_json::Value;

const ALL: &str = "0123456789abcdef";
const VIEW: &str = "fedcba9876543210";

/// A daemon that also listens on TCP, with both tokens, and its address there.
fn host() -> (Host, String, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, token: &str| -> PathBuf {
        let path = directory.path().join(name);
        std::fs::write(&path, token).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    };
    let (all, view) = (file("all", ALL), file("view", VIEW));
    let host = Host::new(
        512,
        &format!("[tcp]\nlisten = '127.0.0.1:0'\ntoken_file = {all:?}\nview_token_file = {view:?}\n"),
    );
    let address = wait_until("the address is in the log", || {
        let log = host.log();
        let (_, rest) = log.split_once("also on tcp ")?;
        rest.split_once(',').map(|(address, _)| address.to_owned())
    });
    (host, address, directory)
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

/// The head and the body of an answer.
fn page(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    document().check("GET", path, "", &Answer::read(&answer));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

#[test]
fn the_page_is_there_without_a_token_and_the_api_is_not() {
    let (_host, address, _directory) = host();
    let (head, body) = page(&address, "/");
    assert!(head.starts_with("http/1.1 200") && head.contains("text/html"), "{head}");
    assert!(head.contains("content-security-policy: default-src 'none'; script-src 'self'"), "{head}");
    assert!(body.contains("<title>Plimsoll</title>") && body.contains("src=\"page.js\""), "{body}");
    let (head, body) = page(&address, "/page.js");
    assert!(head.contains("text/javascript") && body.contains("/v1/live"), "{head}");
    for path in ["/v1/host", "/v1/live", "/nothing"] {
        let (head, body) = page(&address, path);
        assert!(head.starts_with("http/1.1 401"), "{path}: {head} {body}");
    }
}

#[test]
fn the_token_that_permits_to_look_changes_nothing() {
    let (host, address, _directory) = host();
    host.run("a", "64MiB");
    let ask = |method: &str, path: &str, token: &str, body: &str| {
        exchange(TcpStream::connect(&address).unwrap(), method, path, &bearer(token), body)
    };
    assert_eq!(ask("GET", "/v1/vms/a", VIEW, "").0, 200);
    let before: Value = host.get("/v1/vms/a/definition");
    for (method, path, body) in [
        ("PATCH", "/v1/vms/a", r#"{"shares": 5}"#),
        ("POST", "/v1/vms/a/kill", ""),
        ("DELETE", "/v1/vms/a", ""),
        ("POST", "/v1/pools", r#"{"name": "x"}"#),
    ] {
        let (status, answer) = ask(method, path, VIEW, body);
        assert_eq!(status, 403, "{method} {path}: {answer}");
        assert!(error_of(&answer).contains("permits to look"), "{answer}");
    }
    assert_eq!(host.get::<Value>("/v1/vms/a/definition"), before);
    assert_eq!(ask("PATCH", "/v1/vms/a", ALL, r#"{"shares": 5}"#).0, 200);
}

#[test]
fn the_token_that_permits_to_look_shows_no_hash_of_a_password() {
    let (host, address, _directory) = host();
    let mut vm = host::definition("a", "64MiB");
    vm["cloud_init"] = serde_json::json!({"password_hash": "$6$salt$hash", "hostname": "a"});
    assert_eq!(host.ask("POST", "/v1/vms?start=false", &vm.to_string()).0, 200);
    let shown = |token: &str| -> Value {
        let stream = TcpStream::connect(&address).unwrap();
        let (status, body) = exchange(stream, "GET", "/v1/vms/a/definition", &bearer(token), "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["cloud_init"].clone()
    };
    assert_eq!(shown(ALL), vm["cloud_init"]);
    assert_eq!(shown(VIEW), serde_json::json!({"hostname": "a"}));
}

#[test]
fn the_live_state_comes_again_and_again_and_is_that_of_the_ledger() {
    let (host, address, _directory) = host();
    host.run("a", "64MiB");
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET /v1/live HTTP/1.1\r\nhost: x\r\n{}\r\n", bearer(VIEW)).unwrap();
    let lines = BufReader::new(stream).lines().map(Result::unwrap);
    let states = lines.filter_map(|line| line.strip_prefix("data: ").map(str::to_owned));
    let states = states.inspect(|state| document().check_event("/v1/live", state));
    let states: Vec<Value> = states.take(3).map(|state| serde_json::from_str(&state).unwrap()).collect();
    for state in &states {
        let part = |name: &str| state["host"][name].as_u64().unwrap();
        assert_eq!(part("granted") + part("overhead") + part("frames") + part("free"), part("budget"));
        assert_eq!(state["vms"][0]["name"], "a");
    }
    assert!(states[0]["at"].as_str().unwrap() < states[2]["at"].as_str().unwrap());
}

#[test]
fn explanations_come_as_sentences_too() {
    let (host, address, _directory) = host();
    host.run("a", "64MiB");
    let text = |path: &str| exchange(TcpStream::connect(&address).unwrap(), "GET", path, &bearer(VIEW), "");
    let (status, why) = text("/v1/vms/a/explain?format=text");
    assert!(status == 200 && why.starts_with("a has ") && why.contains("\nbudget "), "{why}");
    let (status, why) = text("/v1/explain?format=text");
    assert!(status == 200 && why.starts_with("budget ") && why.contains("ENTITLED"), "{why}");
    let (status, answer) = text("/v1/explain?format=xml");
    assert!(status == 400 && error_of(&answer).contains("xml"), "{answer}");
}
