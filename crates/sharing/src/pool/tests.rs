use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::*;

/// Tries to open standard input anew for writing, and then to change what keeps it from that.
const ATTACK: &str = "exec 3<>/proc/self/fd/0 && echo written; chmod 600 /proc/self/fd/0 && exec 3<>/proc/self/fd/0 && echo written; \
    exec 4</proc/self/fd/0 && echo read";

/// What a user makes of a member's descriptor.
fn attack(uid: u32) -> String {
    let pool = Pool::new(Pages(4)).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", ATTACK]).stdin(Stdio::from(pool.reader().unwrap())).stderr(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(uid).gid(uid);
    }
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

#[test]
fn a_members_descriptor_is_no_way_to_writing() {
    // Only root can become another user to try; the owner of the file may do what it likes with it.
    if rustix::process::geteuid().is_root() {
        assert_eq!(attack(65534), "");
        assert!(attack(0).contains("written"), "the attack would work");
    }
}

#[test]
fn a_members_descriptor_reads_and_does_not_write() {
    let pool = Pool::new(Pages(4)).unwrap();
    pool.write(FrameNo(2), &[[7; 4096]]).unwrap();
    let member = File::from(pool.reader().unwrap());
    let mut content = [0; 4096];
    member.read_exact_at(&mut content, FrameNo(2).offset()).unwrap();
    assert_eq!(content, [7; 4096]);
    assert!(member.write_all_at(&content, 0).is_err());
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert!(fs::fallocate(&member, flags, 0, PAGE_SIZE).is_err());
    for length in [0, PAGE_SIZE, 8 * PAGE_SIZE] {
        assert!(fs::ftruncate(&member, length).is_err());
        assert!(
            fs::ftruncate(&pool.file, length).is_err(),
            "not even the daemon takes the file from under mappings"
        );
    }
    assert!(fs::fcntl_add_seals(&member, SealFlags::WRITE).is_err(), "a member could stop the daemon");
    assert_eq!(fs::fstat(&pool.file).unwrap().st_mode & 0o777, 0o400);
}

#[test]
fn memory_comes_and_goes_with_frames() {
    let pool = Pool::new(Pages(1 << 20)).unwrap();
    assert_eq!((pool.limit().unwrap(), pool.resident().unwrap()), (Pages(1 << 20), Pages(0)));
    for frame in [0, 1, 2, 1_000_000] {
        pool.write(FrameNo(frame), &[[1; 4096]]).unwrap();
    }
    assert_eq!(pool.resident().unwrap(), Pages(4));
    assert_eq!(pool.data(FrameNo(0)).unwrap(), Some((FrameNo(0), Pages(3))));
    assert_eq!(pool.data(FrameNo(1)).unwrap(), Some((FrameNo(1), Pages(2))));
    assert_eq!(pool.data(FrameNo(3)).unwrap(), Some((FrameNo(1_000_000), Pages(1))));
    assert_eq!(pool.data(FrameNo(1_000_001)).unwrap(), None);
    for (frame, has_data) in [(0, true), (2, true), (3, false), (1_000_000, true), (1_000_001, false)] {
        assert_eq!(pool.has_data(FrameNo(frame)).unwrap(), has_data, "{frame}");
    }
    pool.punch(FrameNo(1), Pages(2)).unwrap();
    assert_eq!(pool.resident().unwrap(), Pages(2));
    let mut content = [9; 4096];
    pool.read(FrameNo(1), &mut content).unwrap();
    assert_eq!((content, pool.resident().unwrap()), ([0; 4096], Pages(2)));
}

#[test]
fn a_members_descriptor_is_enough_to_open_the_pool_again() {
    let pool = Pool::new(Pages(4)).unwrap();
    pool.write(FrameNo(3), &[[5; 4096]]).unwrap();
    let reader = pool.reader().unwrap();
    drop(pool);
    let again = Pool::reopen(&reader).unwrap();
    again.write(FrameNo(2), &[[6; 4096]]).unwrap();
    let mut content = [0; 4096];
    again.read(FrameNo(3), &mut content).unwrap();
    assert_eq!((content, again.limit().unwrap()), ([5; 4096], Pages(4)));
    assert_eq!(fs::fstat(reader.as_fd()).unwrap().st_mode & 0o777, 0o400);
}
