//! What the kernel accounts to a process, read from `/proc/PID/smaps`: the measure that owes nothing to Plimsoll's ledger.

use std::fs;

use anyhow::{Context, Result};
use plimsoll_units::Bytes;

/// Resident memory of a VMM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Guest memory and pools: the run of private anonymous memory that is as large as the guest, and every memfd.
    pub(crate) guest: Bytes,
    /// Everything else: code, heap, stacks, tables.
    pub(crate) rest: Bytes,
}

/// The account of process `pid`, whose guest has `size` of memory; `None` when the process is gone.
pub(crate) fn account(pid: u32, size: Bytes) -> Result<Option<Account>> {
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

/// One mapping.
struct Mapping<'a> {
    start: u64,
    end: u64,
    name: &'a str,
    resident: u64,
    /// Not passed on by fork: guest memory is mapped so, and neither heaps nor stacks are, which may lie beside it.
    private: bool,
}

fn parse(text: &str, size: Bytes) -> Result<Account> {
    let mut mappings: Vec<Mapping<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(kib) = line.strip_prefix("Rss:") {
            let kib = kib.trim().trim_end_matches(" kB");
            let mapping = mappings.last_mut().context("a size before its mapping")?;
            mapping.resident = kib.parse::<u64>().with_context(|| format!("size {kib:?}"))? * 1024;
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            let mapping = mappings.last_mut().context("flags before their mapping")?;
            mapping.private = flags.split_whitespace().any(|flag| flag == "dc");
        } else if let Some((range, rest)) = line.split_once(' ')
            && let Some((start, end)) = range.split_once('-')
        {
            let address =
                |text: &str| u64::from_str_radix(text, 16).with_context(|| format!("mapping {line:?}"));
            let name = rest.splitn(5, ' ').nth(4).unwrap_or_default().trim();
            mappings.push(Mapping {
                start: address(start)?,
                end: address(end)?,
                name,
                resident: 0,
                private: false,
            });
        }
    }
    let mut account = Account::default();
    let mut rest = mappings.as_slice();
    while let Some(first) = rest.first() {
        // Guest memory is one mapping to its VMM, but many to the kernel, as chunks differ in their flags.
        let touching =
            rest.windows(2).take_while(|pair| may_be_guest(&pair[1]) && pair[0].end == pair[1].start);
        let count = if may_be_guest(first) { 1 + touching.count() } else { 1 };
        let (run, after) = rest.split_at(count);
        let length = run.last().map_or(0, |last| last.end - first.start);
        let resident = Bytes(run.iter().map(|mapping| mapping.resident).sum());
        let is_guest = (may_be_guest(first) && length >= size.0) || first.name.contains("memfd:");
        let side = if is_guest { &mut account.guest } else { &mut account.rest };
        *side = *side + resident;
        rest = after;
    }
    Ok(account)
}

/// Anonymous memory that fork does not pass on. A name given with `PR_SET_VMA_ANON_NAME` does not matter.
fn may_be_guest(mapping: &Mapping<'_>) -> bool {
    mapping.private && (mapping.name.is_empty() || mapping.name.starts_with("[anon"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
00400000-00500000 r-xp 00000000 fd:00 1234                               /bin/plimsoll-vmm
Size: 1024 kB
Rss: 900 kB
01000000-01100000 rw-p 00000000 00:00 0                                  [heap]
Rss: 100 kB
7f0000000000-7f0000200000 rw-p 00000000 00:00 0 \n\
Rss: 2048 kB
VmFlags: rd wr mr mw me dc hg um
7f0000200000-7f0000400000 rw-p 00000000 00:00 0 \n\
Rss: 8 kB
VmFlags: rd wr mr mw me dc
7f0000400000-7f0000401000 rw-p 00000000 00:00 0 \n\
Rss: 4 kB
VmFlags: rd wr mr mw me ac
7f0000600000-7f0000700000 rw-p 00000000 00:00 0 \n\
Rss: 16 kB
7f0000800000-7f0000900000 rw-s 00000000 00:01 77                         /memfd:pool (deleted)
Rss: 64 kB
";

    #[test]
    fn guest_memory_is_the_run_as_large_as_the_guest() {
        let account = parse(TEXT, Bytes::mib(4)).unwrap();
        assert_eq!(account.guest, Bytes((2048 + 8 + 64) << 10));
        assert_eq!(account.rest, Bytes((900 + 100 + 4 + 16) << 10));
    }

    #[test]
    fn a_smaller_run_is_no_guest_memory() {
        assert_eq!(parse(TEXT, Bytes::mib(6)).unwrap().guest, Bytes(64 << 10));
    }
}
