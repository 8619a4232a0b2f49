//! Memory of a VMM that is not its guest's, read from `/proc/PID/smaps`.

use std::fs;

use anyhow::{Context, Result, bail};
use plimsoll_units::Bytes;

/// What a VMM's process holds, as the kernel accounts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Footprint {
    /// Resident memory of everything but guest memory, pages shared with other processes included.
    pub(super) outside: Bytes,
    /// The part of `outside` that no other process can ever share: written pages and anonymous memory.
    pub(super) private: Bytes,
}

/// The footprint of process `pid`, whose guest has `size` of memory.
pub(super) fn footprint(pid: u32, size: Bytes) -> Result<Footprint> {
    let path = format!("/proc/{pid}/smaps");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    parse(&text, size).context(path)
}

/// One mapping, sizes in bytes.
#[derive(Debug, Default)]
struct Mapping {
    start: u64,
    end: u64,
    writable: bool,
    resident: u64,
    anonymous: u64,
    private_dirty: u64,
    /// Not inherited by child processes. KVM needs guest memory to be so, hence both VMMs mark theirs, and nothing else
    /// that is large.
    not_inherited: bool,
}

impl Mapping {
    fn private(&self) -> u64 {
        // A file in a file system in memory is dirty for ever, even where it is code that every process shares.
        if self.writable { self.anonymous.max(self.private_dirty) } else { self.anonymous }
    }
}

fn parse(text: &str, size: Bytes) -> Result<Footprint> {
    let mappings = mappings(text)?;
    let mut footprint = Footprint::default();
    let mut guests = 0;
    let mut rest = mappings.as_slice();
    while let Some(first) = rest.first() {
        // Guest memory is one mapping to its VMM, and perhaps many to the kernel.
        let touching = rest
            .windows(2)
            .take_while(|pair| first.not_inherited && pair[1].not_inherited && pair[0].end == pair[1].start);
        let (run, after) = rest.split_at(1 + touching.count());
        rest = after;
        let length = run.last().map_or(0, |last| last.end - first.start);
        if first.not_inherited && length == size.0 {
            guests += 1;
            continue;
        }
        for mapping in run {
            footprint.outside.0 += mapping.resident;
            footprint.private.0 += mapping.private();
        }
    }
    if guests != 1 {
        bail!("{guests} mappings look like guest memory of {size}, which leaves open what is outside of it");
    }
    Ok(footprint)
}

fn mappings(text: &str) -> Result<Vec<Mapping>> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(' ') else { continue };
        if let Some((start, end)) = key.split_once('-') {
            let address =
                |text: &str| u64::from_str_radix(text, 16).with_context(|| format!("mapping {line:?}"));
            let (start, end) = (address(start)?, address(end)?);
            let writable = value.as_bytes().get(1) == Some(&b'w');
            mappings.push(Mapping { start, end, writable, ..Mapping::default() });
            continue;
        }
        let mapping = mappings.last_mut().with_context(|| format!("{line:?} before any mapping"))?;
        let bytes = || {
            let kib = value.trim().trim_end_matches(" kB").parse::<u64>();
            kib.map(|kib| kib << 10).with_context(|| format!("size {line:?}"))
        };
        match key {
            "Rss:" => mapping.resident = bytes()?,
            "Anonymous:" => mapping.anonymous = bytes()?,
            "Private_Dirty:" => mapping.private_dirty = bytes()?,
            "VmFlags:" => mapping.not_inherited = value.split_whitespace().any(|flag| flag == "dc"),
            _ => {}
        }
    }
    Ok(mappings)
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
";

    #[test]
    fn guest_memory_is_left_out_and_its_neighbours_are_not() {
        let footprint = parse(TEXT, Bytes::mib(4)).unwrap();
        assert_eq!(footprint, Footprint { outside: Bytes(1016 << 10), private: Bytes(116 << 10) });
    }

    #[test]
    fn a_process_whose_guest_memory_is_not_found_is_an_error() {
        assert!(parse(TEXT, Bytes::mib(6)).is_err());
        assert!(parse("Rss: 1 kB\n", Bytes::mib(4)).is_err());
    }
}
