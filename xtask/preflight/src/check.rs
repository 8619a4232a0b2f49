//! The look itself: all that is missing is installed, downloaded, or named in one message.

use std::fmt;

use anyhow::{Result, bail};

use crate::lists;
use crate::needs::{Needs, Userfaultfd};
use crate::packages::{self, Tool};
use crate::space::{self, Shortage};
use crate::sys::userfaultfd;
use crate::{Size, apt, cache, cargo, deb, kernel, memory, program};

/// Something that a command needs and this machine lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Lack {
    /// Programs, and their packages.
    Tools(Vec<Tool>),
    /// What apt could not find or download, in words.
    Debian(String),
    /// Disk space.
    Space(Shortage),
    /// Memory for something.
    Memory { what: &'static str, needed: Size, available: Size },
    /// `/dev/userfaultfd`; whether the system call is allowed.
    Userfaultfd { call: bool },
    /// Components of Rust.
    Components(Vec<&'static str>),
}

/// Looks for what `cargo xtask` with `arguments` needs, which are `needs`. As root on Debian it
/// installs packages; what the cache lacks is downloaded.
///
/// # Errors
/// All that is missing, in one message, with what to do.
pub fn check(arguments: &[String], needs: &Needs) -> Result<()> {
    let mut lacks = resources(needs)?;
    let absent = packages::missing(&needs.tools);
    let may_install = apt::may_install();
    if !may_install && !absent.is_empty() {
        lacks.push(Lack::Tools(absent));
    }
    if lacks.is_empty() {
        if needs.newest {
            renew()?;
        }
        match packages::ensure(&needs.tools) {
            Ok(()) => lacks.extend(from_debian(needs, fetch).into_iter().map(Lack::Debian)),
            Err(error) => lacks.push(Lack::Debian(format!("{error:#}"))),
        }
    } else if !may_install {
        lacks.extend(from_debian(needs, look).into_iter().map(Lack::Debian));
    }
    if lacks.is_empty() {
        return Ok(());
    }
    bail!(message(arguments, &lacks, may_install))
}

/// What of space, memory, devices and components is missing.
fn resources(needs: &Needs) -> Result<Vec<Lack>> {
    let mut lacks: Vec<Lack> = space::shortages(&needs.places()?).into_iter().map(Lack::Space).collect();
    lacks.extend(needs.memory.and_then(|(what, needed)| {
        let available = memory::available().filter(|available| *available < needed)?;
        Some(Lack::Memory { what, needed, available })
    }));
    if needs.userfaultfd == Userfaultfd::Device && !userfaultfd::device() {
        lacks.push(Lack::Userfaultfd { call: userfaultfd::call() });
    }
    let components = if needs.components { cargo::missing_components() } else { Vec::new() };
    if !components.is_empty() {
        lacks.push(Lack::Components(components));
    }
    Ok(lacks)
}

/// Forgets what the cache has, and updates the lists.
fn renew() -> Result<()> {
    lists::refresh();
    deb::forget()?;
    kernel::Version::ALL.into_iter().try_for_each(kernel::forget)
}

/// Something of Debian's.
#[derive(Clone, Copy, Debug)]
enum Item {
    Kernel(kernel::Version),
    Deb(&'static str),
    Archives,
}

/// The errors of `find`, of all that comes from Debian.
fn from_debian(needs: &Needs, find: impl Fn(Item) -> Result<()>) -> Vec<String> {
    let kernels = needs.kernels.iter().map(|version| Item::Kernel(*version));
    let debs = needs.debs.iter().map(|package| Item::Deb(package));
    let archives = needs.archives.then_some(Item::Archives);
    let items = kernels.chain(debs).chain(archives);
    items.filter_map(|item| find(item).err()).map(|error| format!("{error:#}")).collect()
}

/// Brings it into the cache.
fn fetch(item: Item) -> Result<()> {
    match item {
        Item::Kernel(version) => kernel::fetch(version).map(drop),
        Item::Deb(package) => deb::file(package).map(drop),
        Item::Archives => lists::with_fresh(lists::know_debian),
    }
}

/// Looks whether it can be had.
fn look(item: Item) -> Result<()> {
    match item {
        Item::Kernel(version) => match kernel::cached(version)? {
            Some(_) => Ok(()),
            None => kernel::newest(version).map(drop),
        },
        Item::Deb(package) if deb::cached(package)?.is_some() => Ok(()),
        Item::Deb(package) => apt::cache(&["show", package]).map(drop),
        Item::Archives => lists::know_debian(),
    }
}

/// All of `lacks`, and what to do. `tried` says whether packages were to be installed.
fn message(arguments: &[String], lacks: &[Lack], tried: bool) -> String {
    let mut text = format!("`cargo xtask {}` needs what this machine lacks:", arguments.join(" "));
    for lack in lacks {
        text += &format!("\n  - {lack}");
    }
    let tools: Vec<Tool> = lacks.iter().flat_map(Lack::tools).copied().collect();
    let of_debian = lacks.iter().any(|lack| matches!(lack, Lack::Tools(_) | Lack::Debian(_)));
    if of_debian && program::find("apt-get").is_none() {
        text += "\nThese come from Debian's packages: use a machine with Debian 12 or newer.";
    } else if !tools.is_empty() {
        text += &format!("\nRun as root: {}", packages::install_command(&packages::packages(&tools)));
    } else if of_debian && tried {
        text += "\nLook at apt's messages above: the network or apt's sources may be at fault.";
    } else if of_debian {
        text += "\nRun as root: apt-get update";
    }
    let of_the_lab = of_debian || lacks.iter().any(|lack| matches!(lack, Lack::Memory { .. }));
    if of_the_lab && arguments.first().is_some_and(|verb| verb == "demo") {
        text += "\n`cargo xtask demo --model` needs neither KVM nor QEMU: its guests are host threads.";
    }
    text
}

impl Lack {
    fn tools(&self) -> &[Tool] {
        if let Self::Tools(tools) = self { tools } else { &[] }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tools(tools) => {
                let programs: Vec<&str> = tools.iter().map(|tool| tool.program).collect();
                write!(f, "programs: {} not found", programs.join(", "))
            }
            Self::Debian(text) => write!(f, "Debian's packages: {text}"),
            Self::Space(Shortage { places, needed, free }) => {
                let places: Vec<String> = places
                    .iter()
                    .map(|place| format!("{} in {}", place.what, place.path.display()))
                    .collect();
                let places = places.join(" and ");
                write!(
                    f,
                    "disk space: {needed} for {places}, {free} free; free some, or set {}, \
                     CARGO_TARGET_DIR or TMPDIR",
                    cache::VARIABLE
                )
            }
            Self::Memory { what, needed, available } => {
                write!(f, "memory: {needed} for {what}, {available} available")
            }
            Self::Userfaultfd { call } => {
                let device = userfaultfd::DEVICE;
                let way = if *call {
                    "the system call userfaultfd works"
                } else {
                    "userfaultfd(2) is refused, too"
                };
                write!(
                    f,
                    "{device} cannot be opened ({way}): run as root on Linux 6.1 or newer; \
                     a container has to be given the device"
                )
            }
            Self::Components(names) => {
                let names = names.join(" ");
                write!(f, "Rust components: {names} not installed; run `rustup component add {names}`")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacks() -> Vec<Lack> {
        vec![
            Lack::Tools(vec![packages::LAB[0], packages::LAB[1]]),
            Lack::Debian("apt knows no 6.12 cloud kernel".to_owned()),
            Lack::Memory { what: "the lab", needed: Size::gib(3), available: Size::gib(2) },
            Lack::Userfaultfd { call: false },
            Lack::Components(vec!["clippy"]),
        ]
    }

    #[test]
    fn everything_is_named_in_one_message_with_one_command() {
        let text = message(&["demo".to_owned(), "--json".to_owned()], &lacks(), false);
        for part in [
            "`cargo xtask demo --json` needs",
            "qemu-system-x86_64, busybox not found",
            "apt knows no 6.12 cloud kernel",
            "3GiB for the lab, 2GiB available",
            "/dev/userfaultfd",
            "rustup component add clippy",
            "cargo xtask demo --model",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
        if program::find("apt-get").is_some() {
            let command =
                "apt-get update && apt-get install --no-install-recommends busybox-static qemu-system-x86";
            assert_eq!(text.matches(command).count(), 1, "{text}");
        }
    }

    #[test]
    fn lists_alone_need_an_update_only() {
        let text = |tried| message(&["test".to_owned()], &lacks()[1..2], tried);
        assert!(
            !text(false).contains("apt-get install") && !text(false).contains("--model"),
            "{}",
            text(false)
        );
        if program::find("apt-get").is_some() {
            assert!(text(false).ends_with("Run as root: apt-get update"), "{}", text(false));
            assert!(text(true).contains("the network or apt's sources"), "{}", text(true));
        }
    }
}
