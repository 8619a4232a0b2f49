//! What the kernel says of a VMM's memory: the account that no VMM can talk its way around.
//!
//! Two readings, both from `/proc/PID`:
//! - `smaps`, over the range that the VMM calls guest memory: exact, frames of a sharing domain left out, which are no memory of the
//!   VM's own; but the kernel walks the page tables of the whole
//!   process for it. A VM of small pages costs some 10 ms a GiB, one of huge pages next to nothing; the mappings before
//!   the range are walked too. [`Pace`] bounds what that may take of a core.
//! - `status`: anonymous and shared memory of the whole process, off by up to 64 pages a thread, for free. Shared memory is
//!   told apart: frames that the VM maps are part of it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use plimsoll_units::Bytes;

use crate::core::KernelAccount;
use crate::memory::{field, kib};
use crate::process::Process;

/// Most text that is read of one `smaps`: 65 530 mappings (`vm.max_map_count`) of about 750 bytes are 50 MB.
const MAX_SMAPS: u64 = 64 << 20;
/// Longest line of it: a path of 4096 bytes and its numbers.
const MAX_LINE: u64 = 8192;

/// The account of one process, whose VMM says that guest memory is at `ram`. Zeros where the process is gone or closed to
/// this user.
pub(crate) fn read(process: &Process, ram: (u64, Bytes)) -> KernelAccount {
    let directory = format!("/proc/{}", process.pid());
    let ram = if ram.1 == Bytes::ZERO {
        Bytes::ZERO
    } else {
        File::open(format!("{directory}/smaps")).map_or(Bytes::ZERO, |smaps| resident(smaps, ram))
    };
    let status = std::fs::read_to_string(format!("{directory}/status")).unwrap_or_default();
    let part = |key| field(&status, key).unwrap_or(Bytes::ZERO);
    if process.is_gone() {
        // The number may be another process' by now.
        return KernelAccount::default();
    }
    KernelAccount { ram, process: part("RssAnon:"), shared: part("RssShmem:") }
}

/// Anonymous memory of the mappings that begin within a range. Guest memory is set apart from its neighbours by its flags
/// (MADV_DONTFORK), so no mapping reaches across its edges.
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

/// How often accounts are taken: once a second, and so seldom that they take at most a hundredth of a core: whatever
/// they take, a guest on a busy host lacks.
#[derive(Debug)]
pub(crate) struct Pace {
    next: Instant,
}

impl Pace {
    const SHORTEST: Duration = Duration::from_secs(1);
    const SHARE: u32 = 100;

    pub(crate) fn new(now: Instant) -> Self {
        Self { next: now }
    }

    /// When the next account is due.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// An account was taken from `began` to `ended`.
    pub(crate) fn took(&mut self, began: Instant, ended: Instant) {
        let cost = ended.saturating_duration_since(began);
        self.next = began + Self::SHORTEST.max(cost * Self::SHARE);
    }
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

    #[test]
    fn a_dear_account_is_taken_seldom() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        pace.took(begin, begin + Duration::from_millis(5));
        assert_eq!(pace.next(), begin + Pace::SHORTEST);
        pace.took(begin, begin + Duration::from_millis(500));
        assert_eq!(pace.next(), begin + Duration::from_secs(50));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "([0-9a-f-]{0,9} |Anonymous: |[0-9]{0,21} kB|\n){0,40}", start: u64, len: u64) {
            resident(text.as_bytes(), (start, Bytes(len)));
        }
    }
}
