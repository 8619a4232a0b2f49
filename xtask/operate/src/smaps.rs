//! What the kernel accounts to a process, read from `/proc/PID/smaps`: the measure that owes
//! nothing to Plimsoll's ledger.

use std::fs;
use std::ops::Range;

use anyhow::{Context, Result};
use plimsoll_units::Bytes;

/// Resident memory of a VMM, of Plimsoll or another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Guest memory and pools: the run of private memory that is as large as the guest, less the
    /// frames in it that it shares, with the samples that are set aside behind it, and every memfd
    /// of another hypervisor. Zero where there is no such run.
    pub guest: Bytes,
    /// Everything else: code, heap, stacks, tables; what other processes share included.
    pub rest: Bytes,
    /// The part of `rest` that no other process can ever share: written pages and anonymous memory.
    pub private: Bytes,
}

/// The account of process `pid`, whose guest has `size` of memory; `None` when the process is gone.
pub fn account(pid: u32, size: Bytes) -> Result<Option<Account>> {
    match fs::read_to_string(format!("/proc/{pid}/smaps")) {
        Ok(text) if !text.is_empty() => {
            parse(&text, size).map(Some).with_context(|| format!("/proc/{pid}/smaps"))
        }
        // A process that ends shows an empty map before it is gone.
        Ok(_) => Ok(None),
        Err(error)
            if error.raw_os_error().is_some_and(|code| code == libc::ESRCH || code == libc::ENOENT) =>
        {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("reading /proc/{pid}/smaps")),
    }
}

/// Where guest memory of `size` lies in process `pid`: its mappings, and whether each is of frames
/// that VMs share. None where there is no such memory.
pub fn guest_memory(pid: u32, size: Bytes) -> Result<Vec<(Range<u64>, bool)>> {
    let path = format!("/proc/{pid}/smaps");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    guest_in(&text, size).context(path)
}

fn guest_in(text: &str, size: Bytes) -> Result<Vec<(Range<u64>, bool)>> {
    let mut mappings = mappings(text)?;
    // Beside guest memory there may be a view of all frames that there are.
    mappings.retain(|mapping| mapping.writable);
    let of_guest = runs(&mappings).find(|run| is_guest(run, size)).unwrap_or_default();
    Ok(of_guest.iter().map(|mapping| (mapping.start..mapping.end, mapping.is_frames())).collect())
}

/// More address space than the places for samples behind guest RAM take.
const PLACES: Bytes = Bytes::mib(4096);

/// One mapping, sizes in bytes.
#[derive(Debug, Default)]
struct Mapping<'a> {
    start: u64,
    end: u64,
    writable: bool,
    name: &'a str,
    resident: u64,
    anonymous: u64,
    private_dirty: u64,
    /// Not passed on by fork: KVM needs guest memory to be mapped so, and neither heaps nor stacks
    /// are, which may lie beside it.
    not_inherited: bool,
    /// Counted by the kernel towards what may be committed: guest memory of ours never is, buffers
    /// that may lie beside it are.
    accounted: bool,
}

impl Mapping<'_> {
    /// Anonymous memory that fork does not pass on, or frames in its place. A name given with
    /// `PR_SET_VMA_ANON_NAME` does not matter.
    fn may_be_guest(&self) -> bool {
        self.is_frames() || self.not_inherited && (self.name.is_empty() || self.name.starts_with("[anon"))
    }

    /// Frames that VMs share: they belong to no single VM.
    fn is_frames(&self) -> bool {
        self.name.contains("memfd:plimsoll-frames")
    }

    /// One mapping with `next` but for flags that differ from chunk to chunk.
    fn goes_on_in(&self, next: &Self) -> bool {
        let alike = self.accounted == next.accounted || self.is_frames() || next.is_frames();
        self.may_be_guest() && next.may_be_guest() && self.end == next.start && alike
    }

    /// A sampled part of guest memory, which has a place of its own `behind` guest RAM.
    fn is_set_aside(&self, behind: u64) -> bool {
        let places = behind..behind + PLACES.0;
        places.contains(&self.start) && self.name.is_empty() && self.not_inherited && !self.accounted
    }

    /// A file in memory of another hypervisor, which may be its guest's memory. Those of ours are
    /// small and not.
    fn may_be_pool(&self) -> bool {
        self.name.contains("memfd:") && !self.name.contains("memfd:plimsoll-")
    }

    /// What the process has of it for itself, where it is guest memory.
    fn guest(&self) -> u64 {
        if self.is_frames() { self.anonymous } else { self.resident }
    }

    fn private(&self) -> u64 {
        // A file in a file system in memory is dirty for ever, even where it is code that every
        // process shares.
        if self.writable { self.anonymous.max(self.private_dirty) } else { self.anonymous }
    }
}

fn parse(text: &str, size: Bytes) -> Result<Account> {
    let mappings = mappings(text)?;
    let behind = runs(&mappings).find(|run| is_guest(run, size)).map(end);
    let is_set_aside = |run: &[Mapping<'_>]| behind.is_some_and(|behind| run[0].is_set_aside(behind));
    let mut account = Account::default();
    for run in runs(&mappings) {
        if is_guest(run, size) || is_set_aside(run) || run[0].may_be_pool() {
            account.guest.0 += run.iter().map(Mapping::guest).sum::<u64>();
        } else {
            account.rest.0 += run.iter().map(|mapping| mapping.resident).sum::<u64>();
            account.private.0 += run.iter().map(Mapping::private).sum::<u64>();
        }
    }
    Ok(account)
}

/// Mappings that may be one to their process, though many to the kernel: chunks of guest memory
/// differ in their flags.
fn runs<'a>(mappings: &'a [Mapping<'a>]) -> impl Iterator<Item = &'a [Mapping<'a>]> {
    mappings.chunk_by(Mapping::goes_on_in)
}

fn is_guest(run: &[Mapping<'_>], size: Bytes) -> bool {
    run[0].may_be_guest() && end(run) - run[0].start >= size.0
}

/// Where a run ends.
fn end(run: &[Mapping<'_>]) -> u64 {
    run[run.len() - 1].end
}

fn mappings(text: &str) -> Result<Vec<Mapping<'_>>> {
    let mut mappings: Vec<Mapping<'_>> = Vec::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(' ') else { continue };
        if let Some((start, end)) = key.split_once('-') {
            let address =
                |text: &str| u64::from_str_radix(text, 16).with_context(|| format!("mapping {line:?}"));
            mappings.push(Mapping {
                start: address(start)?,
                end: address(end)?,
                writable: value.as_bytes().get(1) == Some(&b'w'),
                name: value.splitn(5, ' ').nth(4).unwrap_or_default().trim(),
                ..Mapping::default()
            });
            continue;
        }
        let mapping = mappings.last_mut().with_context(|| format!("{line:?} before any mapping"))?;
        let bytes = || kib(value).map(|size| size.0).with_context(|| format!("size {line:?}"));
        match key {
            "Rss:" => mapping.resident = bytes()?,
            "Anonymous:" => mapping.anonymous = bytes()?,
            "Private_Dirty:" => mapping.private_dirty = bytes()?,
            "VmFlags:" => {
                let has = |wanted| value.split_whitespace().any(|flag| flag == wanted);
                (mapping.not_inherited, mapping.accounted) = (has("dc"), has("ac"));
            }
            _ => {}
        }
    }
    Ok(mappings)
}

/// A size as the kernel writes it in `/proc`, such as `900 kB`.
pub fn kib(text: &str) -> Option<Bytes> {
    let kib: u64 = text.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024).map(Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
00400000-00500000 r-xp 00000000 fd:00 1234                               /bin/plimsoll-vmm
Rss:                 900 kB
Private_Dirty:       900 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
01000000-01100000 rw-p 00000000 00:00 0                                  [heap]
Rss:                 100 kB
Private_Dirty:       100 kB
Anonymous:           100 kB
VmFlags: rd wr mr mw me ac
7f0000000000-7f0000200000 rw-p 00000000 00:00 0 \n\
Rss:                2048 kB
Private_Dirty:      2048 kB
Anonymous:          2048 kB
VmFlags: rd wr mr mw me dc hg um
7f0000200000-7f0000400000 rw-p 00000000 00:00 0 \n\
Rss:                   8 kB
Private_Dirty:         8 kB
Anonymous:             8 kB
VmFlags: rd wr mr mw me dc um uw
7f0000400000-7f0000500000 rw-p 00000000 00:00 0 \n\
Rss:                  16 kB
Private_Dirty:        12 kB
Anonymous:            16 kB
VmFlags: rd wr mr mw me ac
7f0000800000-7f0000900000 rw-s 00000000 00:01 77                         /memfd:pool (deleted)
Rss:                  64 kB
Private_Dirty:        64 kB
Anonymous:             0 kB
VmFlags: rd wr sh mr mw me ms
";

    #[test]
    fn guest_memory_is_the_run_as_large_as_the_guest() {
        let account = parse(TEXT, Bytes::mib(4)).unwrap();
        assert_eq!(account.guest, Bytes((2048 + 8 + 64) << 10));
        assert_eq!(account.rest, Bytes((900 + 100 + 16) << 10));
        assert_eq!(account.private, Bytes(116 << 10));
    }

    #[test]
    fn frames_in_guest_memory_are_part_of_it_and_no_one_guests() {
        let small = "7f0000200000-7f0000400000 rw-p 00000000 00:00 0 \nRss:                   8 kB\nPrivate_Dirty:         8 kB\n";
        let frames = "7f0000200000-7f0000400000 rw-p 00000000 00:01 9   /memfd:plimsoll-frames (deleted)\nRss:  40 kB\nPrivate_Dirty: 8 kB\n";
        assert!(TEXT.contains(small));
        let account = parse(&TEXT.replace(small, frames), Bytes::mib(4)).unwrap();
        assert_eq!(account.guest, Bytes((2048 + 8 + 64) << 10));
        let window = TEXT.replace("memfd:pool", "memfd:plimsoll-window");
        assert_eq!(parse(&window, Bytes::mib(4)).unwrap().guest, Bytes((2048 + 8) << 10));
    }

    #[test]
    fn samples_behind_guest_memory_are_part_of_it() {
        let sample = "7f0000401000-7f0000402000 rw-p 00000000 00:00 0 \nRss: 4 kB\nAnonymous: 4 kB\nVmFlags: rd wr mr mw me dc\n";
        let behind = "7f0000400000-7f0000500000";
        let moved = "7f0000600000-7f0000700000";
        let text = TEXT.replace(behind, &format!("{sample}{moved}"));
        let account = parse(&text, Bytes::mib(4)).unwrap();
        assert_eq!(account.guest, Bytes((2048 + 8 + 4 + 64) << 10));
        assert_eq!(account.private, Bytes(116 << 10));
        // Before guest memory, and where there is none, it is the process's own.
        let before = sample.replace("7f0000401", "000000001").replace("7f0000402", "000000002");
        let before = format!("{before}{TEXT}");
        assert_eq!(parse(&before, Bytes::mib(4)).unwrap().private, Bytes(120 << 10));
        assert_eq!(parse(&text, Bytes::mib(6)).unwrap().private, Bytes((116 + 2048 + 8 + 4) << 10));
    }

    #[test]
    fn a_buffer_beside_guest_memory_is_not_part_of_it() {
        let buffer = "7efffff00000-7f0000000000 rw-p 00000000 00:00 0 \nRss: 1024 kB\nVmFlags: rd wr mr mw me dc ac dd\n";
        let text = TEXT.replace("7f0000000000-7f0000200000", &format!("{buffer}7f0000000000-7f0000200000"));
        let account = parse(&text, Bytes::mib(4)).unwrap();
        assert_eq!(account.guest, Bytes((2048 + 8 + 64) << 10));
        assert_eq!(account.rest, Bytes((900 + 100 + 16 + 1024) << 10));
    }

    #[test]
    fn a_view_of_all_frames_is_no_guest_memory() {
        let view = "7effc0000000-7f0000000000 r--p 00000000 00:01 9   /memfd:plimsoll-frames (deleted)\nRss:  40 kB\n";
        let found = guest_in(&format!("{view}{TEXT}"), Bytes::mib(4)).unwrap();
        let [chunk, next] = [0x7f00_0000_0000, 0x7f00_0020_0000];
        assert_eq!(found, [(chunk..next, false), (next..next + (2 << 20), false)]);
        assert_eq!(guest_in(TEXT, Bytes::mib(6)).unwrap(), []);
    }

    #[test]
    fn a_smaller_run_is_no_guest_memory() {
        assert_eq!(parse(TEXT, Bytes::mib(6)).unwrap().guest, Bytes(64 << 10));
        assert!(parse("Rss: 1 kB\n", Bytes::mib(4)).is_err());
    }
}
