//! The guest's part of a copy, in the shells that there are here.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::*;

const MARK: &str = "0123456789abcdef0123456789abcdef";

/// A directory of a guest, and a shell of it with the directories of its programs.
struct Guest {
    place: TempDir,
    shell: PathBuf,
    path: String,
}

/// One of each kind of guest that can be had here: with Debian's shell, with bash, and with busybox
/// alone.
fn guests() -> Vec<Guest> {
    let path = std::env::var("PATH").unwrap();
    let guest = |shell: &Path, path: &str| Guest {
        place: tempfile::tempdir().unwrap(),
        shell: shell.to_owned(),
        path: path.to_owned(),
    };
    let find = |name: &str| path.split(':').map(|home| Path::new(home).join(name)).find(|file| file.exists());
    let mut guests = vec![guest(Path::new("/bin/sh"), &path)];
    match find("bash") {
        Some(bash) => guests.push(guest(&bash, &path)),
        None => eprintln!("SKIPPED: no bash here"),
    }
    if let Some(busybox) = find("busybox") {
        let mut busy = guest(&busybox, "");
        let programs = busy.place.path().join(".programs");
        fs::create_dir(&programs).unwrap();
        for name in ["sh", "cat", "mkdir", "rmdir", "rm", "mv", "ls", "id", "tail", "wc", "dd", "sync"] {
            symlink(&busybox, programs.join(name)).unwrap();
        }
        (busy.shell, busy.path) = (programs.join("sh"), programs.display().to_string());
        guests.push(busy);
    } else {
        eprintln!("SKIPPED: no busybox here");
    }
    guests
}

impl Guest {
    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// The names here, without that of a guest's programs.
    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.place.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != ".programs").collect();
        names.sort();
        names
    }

    /// The copy of a file `name` to `to`, which waits for its input.
    fn begin(&self, to: &Path, name: &str) -> Child {
        let mut command = Command::new("env");
        // Not as it is for the tests, which nohup may have started.
        command.args(["--default-signal=HUP", &format!("PATH={}", self.path)]);
        command.arg(&self.shell).args(["-c", WRITE, "sh"]).arg(to).args([name, MARK]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).spawn().unwrap()
    }

    /// Copies a file `name` to `to`, with `input` and its end: its status, what it says.
    fn copy(&self, to: &Path, name: &str, input: &[u8]) -> (Option<i32>, String) {
        let mut child = self.begin(to, name);
        // One that refuses has ended without reading.
        child.stdin.take().unwrap().write_all(input).ok();
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        assert!(stdout.is_empty());
        (status.code(), String::from_utf8(stderr).unwrap())
    }

    #[track_caller]
    fn copies(&self, to: &Path, name: &str, content: &[u8]) {
        let (status, said) = self.copy(to, name, &[content, MARK.as_bytes()].concat());
        assert_eq!((status, said.as_str()), (Some(0), ""), "{}", self.shell.display());
    }

    /// A whole file is not copied, and it says why.
    #[track_caller]
    fn refuses(&self, to: &Path, name: &str, why: &str) {
        let (status, said) = self.copy(to, name, format!("content{MARK}").as_bytes());
        assert_eq!(status, Some(1), "{}: {said}", self.shell.display());
        assert!(said.contains(why), "{}: {said:?}", self.shell.display());
    }
}

#[test]
fn a_file_arrives_whole_as_a_new_file_does() {
    let long: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
    for guest in guests() {
        for content in [&b""[..], b"a\0b\n", &long, MARK.as_bytes()] {
            guest.copies(&guest.at("a file"), "other", content);
            assert!(fs::read(guest.at("a file")).unwrap() == content);
            assert_eq!(guest.names(), ["a file"]);
        }
        let new = guest.at("new");
        fs::write(&new, "").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
        assert_eq!(mode(&guest.at("a file")), mode(&new));
        fs::create_dir(guest.at("directory")).unwrap();
        guest.copies(&guest.at("directory"), "-name", b"1");
        guest.copies(&guest.at("directory/"), "-name", b"2");
        assert_eq!(fs::read(guest.at("directory/-name")).unwrap(), b"2");
    }
}

#[test]
fn an_input_that_ends_before_the_mark_changes_nothing() {
    for guest in guests() {
        let (old, new) = (guest.at("old"), guest.at("new"));
        fs::write(&old, "old").unwrap();
        for part in ["", "half", &MARK[1..], &format!("whole{}", &MARK[..31])] {
            for to in [&old, &new] {
                let (status, said) = guest.copy(to, "x", part.as_bytes());
                assert_eq!((status, said.as_str()), (Some(1), "the copy ended before the file was whole\n"));
            }
            assert_eq!((guest.names(), fs::read(&old).unwrap()), (vec!["old".to_owned()], b"old".to_vec()));
        }
    }
}

#[test]
fn only_a_regular_file_is_replaced_and_no_directory_moved_into() {
    for guest in guests() {
        let fifo = guest.at("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        guest.refuses(&fifo, "x", "not a regular file");
        assert!(fifo.symlink_metadata().unwrap().file_type().is_fifo());
        symlink("fifo", guest.at("to-fifo")).unwrap();
        guest.refuses(&guest.at("to-fifo"), "x", "not a regular file");
        guest.refuses(Path::new("/dev/null"), "x", "not a regular file");
        fs::create_dir_all(guest.at("site/site")).unwrap();
        guest.refuses(&guest.at("site"), "site", "site/site is a directory");
        guest.refuses(&guest.at("none/x"), "x", "none is not a directory");
        guest.refuses(&guest.at("none/"), "x", "none is not a directory");
        assert_eq!(guest.names(), ["fifo", "site", "to-fifo"]);
        assert_eq!(fs::read_dir(guest.at("site/site")).unwrap().count(), 0);
    }
}

#[test]
fn a_link_to_a_file_is_replaced_and_what_it_points_to_stays() {
    for guest in guests() {
        fs::write(guest.at("target"), "old").unwrap();
        for (link, to) in [("link", "target"), ("dangling", "none")] {
            symlink(to, guest.at(link)).unwrap();
            guest.copies(&guest.at(link), "x", b"new");
            assert!(guest.at(link).symlink_metadata().unwrap().is_file());
        }
        assert_eq!(fs::read(guest.at("target")).unwrap(), b"old");
        assert_eq!(guest.names(), ["dangling", "link", "target"]);
    }
}

#[test]
fn a_mv_that_may_move_into_directories_is_kept_from_it() {
    let mut guest = guests().swap_remove(0);
    let programs = guest.at(".programs");
    fs::create_dir(&programs).unwrap();
    let mv = "#!/bin/sh\ncase $* in *-T*) echo 'mv: -T: unknown' >&2; exit 1;; esac\nexec /bin/mv \"$@\"\n";
    program(&programs.join("mv"), mv);
    guest.path = format!("{}:{}", programs.display(), guest.path);
    guest.copies(&guest.at("file"), "x", b"content");
    fs::create_dir_all(guest.at("site/site")).unwrap();
    guest.refuses(&guest.at("site"), "site", "is a directory");
    assert_eq!(guest.names(), ["file", "site"]);
}

#[test]
fn nothing_reaches_what_another_user_puts_in_the_way_of_the_part() {
    let guest = guests().swap_remove(0);
    let fifo = guest.at("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // Open for both, so that a writer would not wait.
    let open = fs::File::options().read(true).write(true).open(&fifo).unwrap();
    rustix::io::ioctl_fionbio(&open, true).unwrap();
    // The names that the shell's number makes foreseeable, and with it the shell.
    let words = "ln -s fifo \"$2.plimsoll-cp.$$\"; ln -s fifo \"$1/.plimsoll-cp.$$\"; \
                 exec sh -c \"$0\" sh \"$2\" name \"$3\"";
    let to = guest.at("to");
    let mut child = Command::new("sh");
    child.args(["-c", words, WRITE]).arg(guest.place.path()).arg(&to).arg(MARK).stdin(Stdio::piped());
    let mut child = child.spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("secret{MARK}").as_bytes()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(fs::read(&to).unwrap(), b"secret");
    let mut bytes = [0; 10];
    assert_eq!(rustix::io::read(&open, &mut bytes), Err(rustix::io::Errno::AGAIN));
}

#[test]
fn a_directory_that_another_user_has_put_in_the_place_of_the_parts_is_not_written() {
    let mut guest = guests().swap_remove(0);
    let programs = guest.at(".programs");
    fs::create_dir_all(guest.at("theirs")).unwrap();
    fs::set_permissions(guest.at("theirs"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink(guest.at("victim"), guest.at("theirs/f")).unwrap();
    fs::create_dir(&programs).unwrap();
    let theirs = guest.at("theirs");
    let mkdir = format!(
        "#!/bin/sh\n/bin/mkdir \"$@\" || exit 1\nfor made; do :; done\n/bin/rmdir \"$made\"\nln -s {} \"$made\"\n",
        theirs.display()
    );
    program(&programs.join("mkdir"), &mkdir);
    guest.path = format!("{}:{}", programs.display(), guest.path);
    guest.refuses(&guest.at("to"), "x", "another program has replaced");
    assert!(!guest.at("victim").exists() && !guest.at("to").exists());
}

#[test]
fn a_copy_that_is_hung_up_leaves_nothing() {
    for guest in guests() {
        let old = guest.at("old");
        fs::write(&old, "old").unwrap();
        let mut child = guest.begin(&old, "x");
        child.stdin.as_ref().unwrap().write_all(b"new").unwrap();
        // The part is there.
        let deadline = Instant::now() + Duration::from_secs(60);
        let part = guest.at(&format!(".plimsoll-cp.{MARK}/f"));
        while fs::read(&part).map_or(0, |part| part.len()) < 3 {
            assert!(Instant::now() < deadline, "nothing is written");
            std::thread::sleep(Duration::from_millis(1));
        }
        let mode = part.parent().unwrap().metadata().unwrap().mode() & 0o777;
        assert_eq!(mode, 0o700, "the part is for nobody else");
        kill_process_group(Pid::from_child(&child), Signal::HUP).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1));
        assert_eq!((guest.names(), fs::read(&old).unwrap()), (vec!["old".to_owned()], b"old".to_vec()));
    }
}

#[test]
fn a_directory_is_no_file_to_send_and_two_marks_differ() {
    let place = tempfile::tempdir().unwrap();
    let error = format!("{:#}", open(place.path()).unwrap_err());
    assert!(error.contains("it is a directory"), "{error}");
    let (one, other) = (mark().unwrap(), mark().unwrap());
    assert_ne!(one, other);
    assert_eq!((one.len(), one.chars().all(|c| c.is_ascii_hexdigit())), (MARK.len(), true));
}

/// A program of a guest that is a script. Another process writes it: a program that this process
/// has open for writing, or one that another test has just started, cannot be run.
fn program(path: &Path, text: &str) {
    let words = "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"";
    let written = Command::new("sh").args(["-c", words, "sh", text]).arg(path).status().unwrap();
    assert!(written.success());
}
