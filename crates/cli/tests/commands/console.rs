//! The serial console.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use serde_json::json;

use crate::fake::{Done, Fake, vm};

fn with_console(fake: &Fake) -> UnixListener {
    let path = fake.path("console");
    let mut vm = vm("a", "on");
    vm["console"] = json!(path);
    fake.on("GET /v1/vms/a", 200, &vm);
    UnixListener::bind(path).unwrap()
}

#[test]
fn a_script_types_and_reads_the_answer() {
    let fake = Fake::new();
    let listener = with_console(&fake);
    let guest = std::thread::spawn(move || {
        let mut console = listener.accept().unwrap().0;
        let mut typed = [0; 14];
        console.read_exact(&mut typed).unwrap();
        console.write_all(b"# touch 64MiB 1\r\ntoucher: ok 64MiB\r\n").unwrap();
        console.read_to_end(&mut Vec::new()).unwrap();
        typed
    });
    fake.run(&["console", "a", "--send", "touch 64MiB 1", "--expect", "toucher: ok"])
        .prints("toucher: ok 64MiB\n");
    assert_eq!(&guest.join().unwrap(), b"touch 64MiB 1\n");
}

#[test]
fn an_answer_that_does_not_come_fails() {
    let fake = Fake::new();
    let _listener = with_console(&fake);
    fake.run(&["console", "a", "--expect", "ok", "--timeout", "10ms"])
        .fails(1, "a: no line with \"ok\" within 10ms; nothing was printed");
}

#[test]
fn a_line_printed_before_counts_where_it_is_asked_for() {
    let fake = Fake::new();
    let _listener = with_console(&fake);
    fake.on_text("GET /v1/vms/a/log?source=console", 200, "boot\r\na login: root\r\n");
    fake.run(&["console", "a", "--expect", "login:", "--seen"]).prints("a login: root\n");
}

#[test]
fn a_pipe_is_sent_and_the_console_printed_until_it_ends() {
    let fake = Fake::new();
    let listener = with_console(&fake);
    let mut child =
        fake.command(&["console", "a"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let mut console = listener.accept().unwrap().0;
    let mut typed = [0; 6];
    console.read_exact(&mut typed).unwrap();
    console.write_all(b"bye\r\n").unwrap();
    drop(console);
    let done = Done::new(&child.wait_with_output().unwrap());
    assert_eq!((&typed, done.code, done.out.as_str()), (b"hello\n", 0, "bye\r\n"));
}

#[test]
fn a_vm_without_a_console_says_what_to_do() {
    let fake = Fake::new();
    fake.on("GET /v1/vms/a", 200, &vm("a", "off")).on("GET /v1/vms/b", 200, &vm("b", "on"));
    assert!(fake.run(&["console", "a"]).err.contains("plimsoll start a"));
    fake.run(&["console", "b"])
        .fails(1, "no process listens at the console of b (/nonexistent/console): see plimsoll show b");
}
