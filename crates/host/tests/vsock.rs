//! Sockets between guests and the host, as far as the daemon has a part in them.

#![allow(clippy::unwrap_used, reason = "only tests use it")]

mod host;

use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use host::{Host, definition};
use serde_json::json;

fn with_vsock(name: &str, vsock: &serde_json::Value) -> String {
    let mut definition = definition(name, "64MiB");
    definition["vsock"] = vsock.clone();
    definition.to_string()
}

#[test]
fn a_guest_reaches_a_program_at_its_socket_also_after_a_restart_of_the_daemon() {
    let mut host = Host::new(512, "");
    assert_eq!(host.ask("POST", "/v1/vms", &with_vsock("caller", &json!({}))).0, 200);
    let socket = host.vm("caller").vsock.unwrap();
    // The VMM listens there: the fake one takes no connection, and the kernel keeps it.
    UnixStream::connect(&socket).unwrap();
    let mut port = socket.into_os_string();
    port.push("_7");
    let listener = UnixListener::bind(port).unwrap();
    let hears_hello = || {
        let (mut guest, _) = listener.accept().unwrap();
        guest.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut hello = [0; 5];
        guest.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
    };
    hears_hello();
    host.kill_daemon();
    // What waits there is from before.
    listener.set_nonblocking(true).unwrap();
    while listener.accept().is_ok() {}
    listener.set_nonblocking(false).unwrap();
    host.start();
    hears_hello();
}

#[test]
fn two_vms_never_have_the_same_context_identifier() {
    let mut host = Host::new(512, "");
    assert_eq!(host.ask("POST", "/v1/vms", &with_vsock("a", &json!({"cid": 52}))).0, 200);
    host.kill_daemon();
    host.start();
    let error = host.refused(422, "POST", "/v1/vms", &with_vsock("b", &json!({"cid": 52})));
    assert!(error.contains("vsock.cid 52 is that of VM a"), "{error}");
    assert_eq!(host.ask("POST", "/v1/vms", &with_vsock("b", &json!({}))).0, 200);
    assert_eq!(host.ask("POST", "/v1/vms", &definition("c", "64MiB").to_string()).0, 200);
    assert_eq!((host.vm("b").vsock.is_some(), host.vm("c").vsock), (true, None));
}
