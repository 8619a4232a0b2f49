//! The kernel's account of a VMM's memory. No VMM can change it.
//!
//! Two readings, both from `/proc/PID`:
//! - `status` ([`process`]): anonymous and shared memory of the whole process, off by up to 64
//!   pages a thread. It costs some 20 us, and is read of all VMs each second. Frames that the VM
//!   maps are part of its shared memory.
//! - `smaps` ([`guest`]), over the range that the VMM calls guest memory: exact, without frames.
//!   The kernel walks the page tables for it: some 10 ms for a GiB of small pages, next to nothing
//!   for huge pages. [`Rota`](crate::rota::Rota) bounds what that takes of a processor.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use plimsoll_machine::{field, kib};
use plimsoll_units::Bytes;

use crate::core::{KernelAccount, ProcessMemory};
use crate::process::Process;

/// Most text that is read of one `smaps`: 65 530 mappings (`vm.max_map_count`) of about 750 bytes
/// are 50 MB.
const MAX_SMAPS: u64 = 64 << 20;
/// Longest line of it: a path of 4096 bytes and its numbers.
const MAX_LINE: u64 = 8192;

/// The account of one process, whose VMM says that guest memory is at `ram`. Zeros where the
/// process is gone or closed to this user.
pub(crate) fn read(process: &Process, ram: (u64, Bytes)) -> KernelAccount {
    KernelAccount { ram: guest(process, ram), process: self::process(process) }
}

/// Anonymous memory in the range `ram` of one process. Zero where the process is gone or closed to
/// this user.
pub(crate) fn guest(process: &Process, ram: (u64, Bytes)) -> Bytes {
    if ram.1 == Bytes::ZERO {
        return Bytes::ZERO;
    }
    let smaps = File::open(format!("/proc/{}/smaps", process.pid()));
    let held = smaps.map_or(Bytes::ZERO, |smaps| resident(smaps, ram));
    // The number may be another process' by now.
    if process.is_gone() { Bytes::ZERO } else { held }
}

/// Memory of one process. Zeros where the process is gone or closed to this user.
pub(crate) fn process(process: &Process) -> ProcessMemory {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap_or_default();
    let part = |key| field(&status, key).unwrap_or(Bytes::ZERO);
    if process.is_gone() {
        return ProcessMemory::default(); // As in `guest`.
    }
    ProcessMemory { anonymous: part("RssAnon:"), shared: part("RssShmem:") }
}

/// Anonymous memory of the mappings that begin within a range. Guest memory is set apart from its
/// neighbours by its flags (MADV_DONTFORK), so no mapping reaches across its edges.
fn resident(smaps: impl Read, (start, len): (u64, Bytes)) -> Bytes {
    let end = start.saturating_add(len.0);
    let mut text = BufReader::with_capacity(64 << 10, smaps.take(MAX_SMAPS));
    let (mut line, mut within, mut sum) = (Vec::new(), false, Bytes::ZERO);
    loop {
        line.clear();
        match text.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return sum,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line);
        if let Some(own) = line.strip_prefix("Anonymous:") {
            if within {
                sum = sum.saturating_add(kib(own).unwrap_or(Bytes::ZERO));
            }
        } else if let Some(first) = mapping_start(&line) {
            if first >= end {
                return sum;
            }
            within = first >= start;
        }
    }
}

/// The address at which a mapping begins, in a line such as `7f00-7f01 rw-p ...`.
fn mapping_start(line: &str) -> Option<u64> {
    let (first, rest) = line.split_once('-')?;
    let (last, _) = rest.split_once(' ')?;
    u64::from_str_radix(last, 16).ok()?;
    u64::from_str_radix(first, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
1000-3000 rw-p 00000000 00:00 0 [heap]
Rss:                   8 kB
Anonymous:             8 kB
3000-5000 rw-p 00000000 00:00 0
Size:                  8 kB
Rss:                   4 kB
Anonymous:             4 kB
4000-5000 r--p 00000000 00:01 7 /memfd:frames (deleted)
Rss:                   4 kB
Anonymous:             0 kB
5000-9000 rw-p 00000000 00:00 0
Rss:                  16 kB
Anonymous:            16 kB
VmFlags: rd wr
9000-a000 rw-p 00000000 00:00 0
Rss:                   4 kB
Anonymous:             4 kB
";

    #[test]
    fn only_the_range_counts() {
        assert_eq!(resident(SMAPS.as_bytes(), (0x3000, Bytes(0x6000))), Bytes(20 << 10));
        assert_eq!(resident(SMAPS.as_bytes(), (0xb000, Bytes(0x1000))), Bytes::ZERO);
        assert_eq!(resident(SMAPS.as_bytes(), (0, Bytes(u64::MAX))), Bytes(32 << 10));
    }

    #[test]
    fn garbage_and_endless_lines_end() {
        let endless = std::io::repeat(b'x');
        assert_eq!(resident(endless, (0, Bytes(u64::MAX))), Bytes::ZERO);
        assert_eq!(resident(&b"-\n- \nAnonymous: kB\nzz-zz r\n"[..], (0, Bytes(1))), Bytes::ZERO);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "([0-9a-f-]{0,9} |Anonymous: |[0-9]{0,21} kB|\n){0,40}", start: u64, len: u64) {
            resident(text.as_bytes(), (start, Bytes(len)));
        }
    }
}
