//! Each test runs itself again as a child, which enters the jail and tries something.

use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use super::*;
use crate::own_process::{command, is_inside};

/// A uid that owns nothing here.
const STRANGER: u32 = 54_321;
const LONGEST: Bytes = Bytes::mib(8);

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn rules() -> Rules<'static> {
    // Without root only the seccomp part can be tried.
    if is_root() { Rules { uid: Some(STRANGER), allow_missing: &[], ..lax() } } else { lax() }
}

/// What anybody can have.
fn lax() -> Rules<'static> {
    let allow_missing = &[JailPart::Uid, JailPart::Filesystem];
    Rules { uid: None, longest_file: LONGEST, connections: 0, allow_missing }
}

/// Runs test `name` in a process of its own.
fn child(name: &str) -> Output {
    command(&format!("jail::tests::{name}")).output().unwrap()
}

fn enter(rules: Rules<'_>) -> Result<Vec<JailPart>, JailError> {
    let mut missing = close(rules)?;
    missing.extend(filter(rules)?);
    Ok(missing)
}

/// What the child says of what it tried; written without allocation worries to a descriptor that
/// stays open.
fn tell(what: &str) {
    rustix::io::write(std::io::stderr(), format!("told: {what}\n").as_bytes()).unwrap();
}

fn reported(output: &Output, what: &str) -> bool {
    String::from_utf8_lossy(&output.stderr).lines().any(|line| line == format!("told: {what}"))
}

#[test]
fn a_forbidden_system_call_kills() {
    if is_inside() {
        enter(rules()).unwrap();
        tell("closed");
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
        tell(&format!("lived with {socket:?}"));
        return;
    }
    let output = child("a_forbidden_system_call_kills");
    assert!(reported(&output, "closed"), "{output:?}");
    assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{output:?}");
}

#[test]
fn a_connection_is_bounded_and_half_ended_inside_and_nothing_else_of_it_is_set() {
    use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair, sockopt};
    if is_inside() {
        let (ours, _theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        enter(rules()).unwrap();
        sockopt::set_socket_send_buffer_size(&ours, 8192).unwrap();
        shutdown(&ours, Shutdown::Write).unwrap();
        tell("done");
        let set = sockopt::set_socket_passcred(&ours, true);
        tell(&format!("lived with {set:?}"));
        return;
    }
    let output = child("a_connection_is_bounded_and_half_ended_inside_and_nothing_else_of_it_is_set");
    assert!(reported(&output, "done"), "{output:?}");
    assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{output:?}");
}

#[test]
fn threads_files_and_memory_still_work_inside() {
    if is_inside() {
        enter(rules()).unwrap();
        let sum = std::thread::Builder::new()
            .spawn(|| vec![1u8; 64 << 20].iter().map(|b| u64::from(*b)).sum::<u64>())
            .unwrap();
        assert_eq!(sum.join().unwrap(), 64 << 20);
        // More threads with memory of their own than any VMM has, all alive at once.
        let barrier = std::sync::Barrier::new(64);
        std::thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| {
                    let memory = vec![1u8; 4096];
                    barrier.wait();
                    drop(memory);
                });
            }
        });
        // What a thread has freed is given back: more than malloc keeps, and in pieces that it does
        // not map one by one.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| drop((0..1024).map(|_| vec![1u8; 4096]).collect::<Vec<_>>()));
            }
        });
        assert!(clock_gettime(ClockId::ThreadCPUTime).tv_nsec > 0);
        tell(&std::thread::scope(|s| s.spawn(|| "fine").join().unwrap().to_owned()));
        // The test harness would use more than a VMM does.
        std::process::exit(0);
    }
    let output = child("threads_files_and_memory_still_work_inside");
    assert!(reported(&output, "fine") && output.status.success(), "{output:?}");
}

#[test]
fn nothing_can_be_opened_inside() {
    if !is_root() {
        return;
    }
    if is_inside() {
        // Without the filter, which would end the attempt before the file system is asked.
        filesystem::close().unwrap();
        become_user(rules()).unwrap();
        for path in ["/etc/passwd", "/proc/self/mem", "/dev/kvm", "../etc/passwd", "/"] {
            let error = std::fs::File::open(path).unwrap_err();
            // Landlock says EACCES, an empty directory ENOENT, the directory of a process that is
            // gone ESRCH.
            let closed = [libc::EACCES, libc::ENOENT, libc::ESRCH].map(Some).contains(&error.raw_os_error());
            tell(&format!("{path} {closed}"));
        }
        assert!(std::fs::write("/x", "x").is_err());
        assert!(std::fs::create_dir("/x").is_err());
        tell(&format!("uid {}", rustix::process::getuid().as_raw()));
        assert!(
            rustix::process::setrlimit(
                rustix::process::Resource::Core,
                rustix::process::Rlimit { current: None, maximum: None }
            )
            .is_err()
        );
        std::process::exit(0);
    }
    let output = child("nothing_can_be_opened_inside");
    assert!(output.status.success(), "{output:?}");
    assert!(reported(&output, &format!("uid {STRANGER}")), "{output:?}");
    assert!(reported(&output, "/etc/passwd true") && reported(&output, "/dev/kvm true"), "{output:?}");
}

#[test]
fn no_file_grows_beyond_the_limit() {
    if is_inside() {
        let file = tempfile::tempfile().unwrap();
        enter(rules()).unwrap();
        let too_long = |result: std::io::Result<()>| {
            result.is_err_and(|error| error.raw_os_error() == Some(libc::EFBIG))
        };
        file.write_all_at(b"end", LONGEST.0 - 3).unwrap();
        tell(&format!("write {}", too_long(file.write_all_at(b"x", LONGEST.0))));
        tell(&format!("set_len {}", too_long(file.set_len(LONGEST.0 + 1))));
        let allocated = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, LONGEST.0 + 1);
        tell(&format!("fallocate {}", too_long(allocated.map_err(Into::into))));
        std::process::exit(0);
    }
    let output = child("no_file_grows_beyond_the_limit");
    for how in ["write", "set_len", "fallocate"] {
        assert!(reported(&output, &format!("{how} true")), "{how}: {output:?}");
    }
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn memory_is_never_dumped() {
    if is_inside() {
        close(rules()).unwrap();
        tell(&format!("{:?}", rustix::process::dumpable_behavior().unwrap()));
        std::process::exit(0);
    }
    // Shows the wrong order only where fs.suid_dumpable is not 0.
    let output = child("memory_is_never_dumped");
    assert!(reported(&output, "NotDumpable"), "{output:?}");
}

#[test]
fn the_empty_root_alone_suffices() {
    if !is_root() {
        return;
    }
    if is_inside() {
        libc_process::enter_empty_root().unwrap();
        let passwd = std::fs::File::open("/etc/passwd").unwrap_err();
        tell(&format!(
            "{:?}",
            passwd.raw_os_error().is_some_and(|e| [libc::ENOENT, libc::ESRCH].contains(&e))
        ));
        tell(&format!("write {:?}", std::fs::write("/x", "x").is_err()));
        std::process::exit(0);
    }
    let output = child("the_empty_root_alone_suffices");
    assert!(reported(&output, "true") && reported(&output, "write true"), "{output:?}");
}

#[test]
fn a_missing_part_is_refused_by_name_or_reported() {
    if is_inside() {
        let root = Rules { uid: Some(0), allow_missing: &[JailPart::Filesystem], ..lax() };
        let refused = enter(root).unwrap_err();
        tell(&refused.to_string());
        let missing = enter(lax()).unwrap();
        tell(&format!("{:?}", missing.contains(&JailPart::Uid)));
        std::process::exit(0);
    }
    let output = child("a_missing_part_is_refused_by_name_or_reported");
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| line.starts_with("told: jail: uid is not available")).unwrap_or("");
    assert!(line.contains("that is root") && line.contains("allow_missing"), "{text}");
    assert!(reported(&output, "true"), "{text}");
}

#[test]
fn a_process_that_may_open_few_files_keeps_that_limit_and_its_jail() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const FEW: Option<u64> = Some(64);
    if is_inside() {
        setrlimit(Resource::Nofile, Rlimit { current: FEW, maximum: FEW }).unwrap();
        close(rules()).unwrap();
        tell(&format!("{}", getrlimit(Resource::Nofile) == Rlimit { current: FEW, maximum: FEW }));
        std::process::exit(0);
    }
    let output = child("a_process_that_may_open_few_files_keeps_that_limit_and_its_jail");
    assert!(reported(&output, "true"), "{}", String::from_utf8_lossy(&output.stderr));
}
