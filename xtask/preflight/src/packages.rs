//! Programs, and the Debian packages that have them: found, named, or installed as root.

use anyhow::{Result, bail};

use crate::program::find;
use crate::say::step;
use crate::{apt, lists};

/// A program, and the Debian package that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    /// The program's name.
    pub program: &'static str,
    /// The package to install.
    pub package: &'static str,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

/// What the guests' image is built with.
pub const GUESTS: &[Tool] =
    &[tool("busybox", "busybox-static"), tool("depmod", "kmod"), tool("dpkg-deb", "dpkg")];

/// What the lab needs.
pub const LAB: &[Tool] = &[
    tool("qemu-system-x86_64", "qemu-system-x86"),
    tool("busybox", "busybox-static"),
    tool("depmod", "kmod"),
    tool("dpkg-deb", "dpkg"),
    tool("mke2fs", "e2fsprogs"),
];

/// What building a Debian disk needs on top.
pub const DISK: &[Tool] =
    &[tool("mmdebstrap", "mmdebstrap"), tool("mke2fs", "e2fsprogs"), tool("debugfs", "e2fsprogs")];

/// What building Debian's cloud image needs on top of that.
pub const CLOUD_IMAGE: &[Tool] = &[tool("sfdisk", "fdisk"), tool("qemu-img", "qemu-utils")];

/// What the Debian package is made with: cargo-deb links a C library.
pub const PACKAGE: &[Tool] = &[tool("cc", "gcc"), tool("strip", "binutils")];

/// What unit tests make disks with.
pub const UNIT: &[Tool] = &[tool("mke2fs", "e2fsprogs")];

/// What judges disk images.
pub const IMAGES: &[Tool] = &[tool("qemu-img", "qemu-utils")];

/// What libFuzzer is built with.
pub const FUZZ: &[Tool] = &[tool("c++", "g++")];

/// Those of `tools` that are not there.
pub(crate) fn missing(tools: &[Tool]) -> Vec<Tool> {
    tools.iter().copied().filter(|tool| find(tool.program).is_none()).collect()
}

/// The packages of `tools`, each once.
pub(crate) fn packages(tools: &[Tool]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = tools.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Makes sure that `tools` are there. As root on Debian it installs the packages of those that are
/// not, and says so; else it names them.
///
/// # Errors
/// Something is missing and could not be installed.
pub fn ensure(tools: &[Tool]) -> Result<()> {
    let absent = missing(tools);
    if absent.is_empty() {
        return Ok(());
    }
    let list = packages(&absent);
    if !apt::may_install() {
        let programs: Vec<&str> = absent.iter().map(|tool| tool.program).collect();
        bail!("{} not found: install with `{}` as root", programs.join(", "), install_command(&list));
    }
    step(&format!("installing Debian packages: {}", list.join(" ")));
    let options = ["install", "--yes", "--quiet=2", "--no-install-recommends"];
    // A new machine may be installing its own updates.
    let lock_timeout = ["-o", "DPkg::Lock::Timeout=120"];
    lists::with_fresh(|| apt::get(&[options.as_slice(), &lock_timeout, &list].concat()))?;
    match missing(tools).first() {
        Some(tool) => bail!("{} is still missing after installing {}", tool.program, tool.package),
        None => Ok(()),
    }
}

/// What installs `packages`, for people.
pub(crate) fn install_command(packages: &[&str]) -> String {
    format!("apt-get update && apt-get install --no-install-recommends {}", packages.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_with_several_programs_is_named_once() {
        assert_eq!(packages(DISK), ["e2fsprogs", "mmdebstrap"]);
    }

    #[test]
    fn programs_are_found_in_the_path_and_absent_ones_are_not() {
        let absent = Tool { program: "no-such-program", package: "none" };
        assert_eq!(missing(&[tool("sh", "dash"), absent]), [absent]);
    }
}
