//! `plimsoll top` on a terminal: the program in a pseudo-terminal, and what stands on its screen.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;

use super::fake::{Fake, error, vm};

/// More than a busy machine takes to start a program and draw a screen.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The program on a terminal.
struct Terminal {
    child: Child,
    keyboard: File,
    /// The end that the program has.
    other: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// `top` against `fake`, with its settings in `home`.
    fn new(fake: &Fake, home: &Path, width: u16, height: u16) -> Self {
        let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&near).unwrap();
        unlockpt(&near).unwrap();
        let name = ptsname(&near, Vec::new()).unwrap();
        let other = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        tcsetwinsize(&other, size(width, height)).unwrap();
        let mut command = fake.command(&["top", "--interval", "100ms"]);
        command.env("XDG_CONFIG_HOME", home).env("TERM", "xterm-256color").env_remove("NO_COLOR");
        let end = || other.try_clone().unwrap();
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let keyboard = File::from(near);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(some(height), some(width), 0)));
        let (mut output, parser) = (keyboard.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of the last one that has the other side open is an error.
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                parser.lock().unwrap().process(&bytes[..length]);
            }
        });
        Self { child, keyboard, other, screen }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` stands on the screen.
    fn shows(&self, text: &str) {
        self.wait(text, || self.text().contains(text));
    }

    fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        while !done() {
            assert!(Instant::now() < deadline, "{what} does not come. The screen:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn resize(&self, width: u16, height: u16) {
        tcsetwinsize(&self.other, size(width, height)).unwrap();
        self.screen.lock().unwrap().screen_mut().set_size(some(height), some(width));
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::WINCH).unwrap();
    }

    /// Waits for the program's end, and returns its exit status.
    fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the program does not end. The screen:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn some(length: u16) -> NonZero<u16> {
    length.try_into().unwrap()
}

fn size(width: u16, height: u16) -> Winsize {
    Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 }
}

/// A daemon with 100 VMs.
fn daemon() -> Fake {
    let fake = Fake::new();
    let host = json!({
        "budget": 640 << 20, "granted": 600 << 20, "overhead": 16 << 20, "free": 24 << 20, "reserved": 0,
        "held": 560 << 20, "ballooned": 0, "kernel": 0, "peak_ledger": 0, "peak_kernel": 0, "state": "soft",
        "high_threshold": 1 << 20, "running": 100, "version": "0.1.0"
    });
    let vms: Vec<_> = (0..100).map(|number| vm(&format!("web{number:02}"), "on")).collect();
    fake.on("GET /v1/host", 200, &host).on("GET /v1/vms", 200, &json!(vms));
    fake.on("GET /v1/pools", 200, &json!([]));
    fake
}

#[test]
fn top_draws_answers_keys_follows_the_screens_size_and_gives_the_terminal_back() {
    let (fake, home) = (daemon(), tempfile::tempdir().unwrap());
    let mut terminal = Terminal::new(&fake, home.path(), 80, 24);
    terminal.shows("100 of 100 VMs on");
    terminal.shows("web14");
    assert!(!terminal.text().contains("web15"), "{}", terminal.text());
    terminal.press("2");
    terminal.shows("OUT/s");
    terminal.resize(200, 50);
    terminal.shows("web40");
    terminal.press("\u{1b}[6~");
    terminal.shows("web41");
    fake.on("GET /v1/vms/web41/explain", 404, &error("there is no VM web41"));
    terminal.press("e");
    terminal.shows("there is no VM web41");
    terminal.press("w");
    terminal.shows("kept in");
    let kept = std::fs::read_to_string(home.path().join("plimsoll/top.toml")).unwrap();
    assert!(kept.contains("pane = \"paging\""), "{kept}");
    terminal.press("q");
    assert_eq!(terminal.end(), Some(0));
    terminal.wait("the old screen", || !terminal.screen.lock().unwrap().screen().alternate_screen());
    assert!(tcgetattr(&terminal.other).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO));
    // The next one begins where this one was.
    let next = Terminal::new(&fake, home.path(), 80, 24);
    next.shows("OUT/s");
}

#[test]
fn a_daemon_that_is_gone_for_a_while_leaves_the_last_table() {
    let (fake, home) = (daemon(), tempfile::tempdir().unwrap());
    let vms = json!([vm("later", "on")]);
    fake.on("GET /v1/vms", 503, &error("not now")).on("GET /v1/vms", 200, &vms);
    let mut terminal = Terminal::new(&fake, home.path(), 80, 24);
    terminal.shows("later");
    terminal.press("\u{3}");
    assert_eq!(terminal.end(), Some(0));
    // Without a daemon there is no screen at all.
    let nobody = Fake::new();
    let mut terminal = Terminal::new(&nobody, home.path(), 80, 24);
    assert_eq!(terminal.end(), Some(3));
    terminal.shows("no answer for GET /v1/vms");
}
