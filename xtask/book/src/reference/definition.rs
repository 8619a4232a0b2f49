use anyhow::{Result, ensure};
use plimsoll_protocol::definition::{
    Bus, CONNECTION_OVERHEAD, MAX_CID, MAX_CONNECTIONS, MAX_SEED, MAX_SEED_FILE, MAX_SERIAL, MAX_SIZE,
    MAX_VCPUS, MIN_BANDWIDTH, MIN_CID, MIN_IOPS, MIN_NET_BANDWIDTH, MIN_PACKETS, MIN_SIZE,
};
use plimsoll_protocol::{Burst, MAX_LABELS};

use super::{Page, docs};

/// Where the manual is.
const SOURCE: &str = include_str!("../../../../crates/protocol/src/definition/mod.rs");

/// The page of VMs' definitions.
///
/// # Errors
/// The manual is not where it was.
pub(super) fn page() -> Result<Page> {
    let manual: Vec<&str> = docs(SOURCE)
        .into_iter()
        .skip_while(|line| *line != "```toml")
        .skip(1)
        .take_while(|line| *line != "```")
        .collect();
    ensure!(manual.len() > 20, "the docs of definitions have no manual");
    let mut body = format!(
        "A definition is TOML for `plimsoll run`, `plimsoll create` and `plimsoll edit`, and JSON with the same keys for the\n\
         [API](api.md). Keys that are left out have their defaults; `plimsoll inspect` prints a definition back.\n\
         A relative path is taken from the definition's directory; the API takes absolute paths only.\n\n\
         ```toml definition\n{}\n```\n\n## Bounds\n\n| key | bounds |\n|---|---|\n",
        manual.join("\n")
    );
    let (mmio, pci) = (Bus::Mmio, Bus::Pci);
    let bounds = [
        ("`size`", format!("a multiple of 2MiB from {MIN_SIZE} to {MAX_SIZE}")),
        ("`vcpus`", format!("1 to {MAX_VCPUS}")),
        ("`reservation`", "at most the limit and the size".to_owned()),
        ("`limit`", format!("at least {MIN_SIZE}")),
        ("`labels`", format!("at most {MAX_LABELS}")),
        (
            "`[[disk]]`",
            format!(
                "at most {} with `bus = \"{mmio}\"` ({} with `[vsock]`), {} with `bus = \"{pci}\"`; `[cloud_init]` and `vsock.agent` count as one each",
                mmio.max_disks(false),
                mmio.max_disks(true),
                pci.max_disks(true)
            ),
        ),
        ("`disk.serial`", format!("1 to {MAX_SERIAL} of `A-Z a-z 0-9 . _ -`")),
        ("`disk.iops`", format!("at least {MIN_IOPS}")),
        ("`disk.bandwidth`", format!("at least {MIN_BANDWIDTH} a second")),
        ("`disk.burst`, `net.burst`", format!("{} to {}", Burst::SHORTEST, Burst::LONGEST)),
        (
            "`[[net]]`",
            format!(
                "at most {} with `bus = \"{mmio}\"`, {} with `bus = \"{pci}\"`",
                mmio.max_nets(),
                pci.max_nets()
            ),
        ),
        ("`net.packets`", format!("at least {MIN_PACKETS}")),
        ("`net.bandwidth`", format!("at least {MIN_NET_BANDWIDTH} a second")),
        (
            "`[cloud_init]`",
            format!("at most {MAX_SEED_FILE} a file; the VM is charged {MAX_SEED} for all of it"),
        ),
        ("`vsock.cid`", format!("{MIN_CID} to {MAX_CID}")),
        (
            "`vsock.connections`",
            format!("1 to {MAX_CONNECTIONS}; the VM is charged {CONNECTION_OVERHEAD} for each"),
        ),
    ];
    for (key, text) in bounds {
        body += &format!("| {key} | {text} |\n");
    }
    Ok(Page::new("definition.md", "Definition of a VM", &body))
}
