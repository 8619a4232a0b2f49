//! Debian's cloud kernels: downloaded and unpacked into the cache, never installed.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

use crate::packages;
use crate::workspace::{self, step};

/// Which of Debian 12's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// The stock kernel of Debian 12: the oldest that Plimsoll supports.
    V6_1,
    /// The newest that Debian 12 gets through its updates, and the stock kernel of Debian 13.
    V6_12,
}

impl Version {
    /// Both, oldest first.
    pub(crate) const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        })
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|version| version.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is no kernel of the lab: choose 6.1 or 6.12"))
    }
}

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// Its release, such as `6.1.0-56-cloud-amd64`.
    pub(crate) release: String,
    /// The bzImage.
    pub(crate) image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The kernel of `version`, from the cache or else from Debian.
    pub(crate) fn get(version: Version) -> Result<Self> {
        let home = workspace::cache()?.join("kernels");
        let package = package(version)?;
        if let Ok(kernel) = Self::unpacked(&home.join(&package)) {
            return Ok(kernel);
        }
        step(&format!("fetching {package}"));
        unpack(&home, &package)
    }

    /// Makes the next [`Kernel::get`] ask Debian for the newest package.
    pub(crate) fn forget(version: Version) -> Result<()> {
        let current = workspace::cache()?.join("kernels").join(format!("{version}.package"));
        match fs::remove_file(&current) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", current.display()))
            }
            _ => Ok(()),
        }
    }

    /// The kernel unpacked at `root`.
    fn unpacked(root: &Path) -> Result<Self> {
        let releases = root.join("lib/modules");
        let entry = fs::read_dir(&releases)?.next().context("no modules")??;
        let release = entry.file_name().to_string_lossy().into_owned();
        let image = root.join(format!("boot/vmlinuz-{release}"));
        let modules = entry.path();
        ensure!(image.is_file() && modules.join("modules.dep").is_file(), "{} is incomplete", root.display());
        Ok(Self { release, image, modules })
    }

    /// The modules `names` and all that they depend on, in an order in which they can be loaded, uncompressed: file name
    /// and content. Names of drivers that are built into this kernel are skipped; unknown names are an error.
    pub(crate) fn modules(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let read = |file: &str| {
            let path = self.modules.join(file);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let (dependencies, builtin) = (read("modules.dep")?, read("modules.builtin")?);
        let paths = load_order(&dependencies, &builtin, names)
            .with_context(|| format!("choosing modules of {}", self.release))?;
        paths.iter().map(|path| self.module(path)).collect()
    }

    fn module(&self, path: &str) -> Result<(String, Vec<u8>)> {
        let file = self.modules.join(path);
        let name = module_name(path);
        let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let bytes = if path.ends_with(".xz") { unxz(&file)? } else { bytes };
        Ok((format!("{name}.ko"), bytes))
    }
}

/// Paths of the modules `names` with their dependencies first, each once. `dependencies` is modules.dep.
fn load_order<'a>(dependencies: &'a str, builtin: &str, names: &[&str]) -> Result<Vec<&'a str>> {
    let mut order: Vec<&str> = Vec::new();
    for name in names {
        let is_it = |path: &str| module_name(path) == name.replace('-', "_");
        let line =
            dependencies.lines().find(|line| line.split_once(':').is_some_and(|(path, _)| is_it(path)));
        let Some((path, needs)) = line.and_then(|line| line.split_once(':')) else {
            if builtin.lines().any(is_it) {
                continue;
            }
            bail!("no module is called {name}");
        };
        // modules.dep lists all that a module needs, in the order in which it is to be removed.
        for path in needs.split_whitespace().rev().chain([path]) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    Ok(order)
}

/// The name of the module in `path`, with underscores as the kernel spells it.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

fn unxz(file: &Path) -> Result<Vec<u8>> {
    // Busybox is needed for the images anyway and knows xz; xz-utils may be missing.
    let busybox = packages::find("busybox").context("busybox not found: install busybox-static")?;
    let output = Command::new(busybox).arg("xzcat").arg(file).stdin(Stdio::null()).output();
    let output = output.context("starting busybox xzcat")?;
    ensure!(
        output.status.success() && !output.stdout.is_empty(),
        "busybox xzcat could not read {}",
        file.display()
    );
    Ok(output.stdout)
}

/// The name of the package with the kernel of `version`: the newest, when the cache was first asked for it.
pub(crate) fn package(version: Version) -> Result<String> {
    let home = workspace::cache()?.join("kernels");
    fs::create_dir_all(&home)?;
    let current = home.join(format!("{version}.package"));
    if let Ok(package) = fs::read_to_string(&current) {
        return Ok(package);
    }
    packages::refresh_if_stale()?;
    let package = newest_package(version)?;
    fs::write(&current, &package).with_context(|| format!("writing {}", current.display()))?;
    Ok(package)
}

/// The package of the newest kernel of `version` that apt knows.
fn newest_package(version: Version) -> Result<String> {
    let (meta, pattern) = match version {
        Version::V6_1 => ("linux-image-cloud-amd64", r"^linux-image-6\.1\.0-[0-9]+-cloud-amd64$"),
        Version::V6_12 => ("linux-image-6.12-cloud-amd64", r"^linux-image-6\.12\.[0-9]+\+deb12-cloud-amd64$"),
    };
    // The metapackage knows best; an apt that is short of it (or a newer Debian) may still have the kernel itself.
    let depends = packages::apt_cache(&["depends", meta]).unwrap_or_default();
    let prefix = format!("linux-image-{version}.");
    let named = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    if let Some(package) = named.into_iter().find(|package| package.starts_with(&prefix)) {
        return Ok(package.to_owned());
    }
    let found = packages::apt_cache(&["search", "--names-only", pattern])?;
    let names = found.lines().filter_map(|line| line.split_whitespace().next());
    let newest = names.max_by_key(|name| numbers(name)).map(str::to_owned);
    newest.with_context(|| {
        format!(
            "apt knows no {version} cloud kernel (looked for {meta}): \
             add Debian 12 with its security updates to apt's sources and run `apt-get update`"
        )
    })
}

/// The numbers in a package's name, for comparing versions.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// Downloads and unpacks `package` into `home`, and works out its modules' dependencies.
fn unpack(home: &Path, package: &str) -> Result<Kernel> {
    let scratch = tempfile::tempdir_in(home)?;
    let deb = packages::download(package, scratch.path())?;
    let root = scratch.path().join("root");
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&root))?;
    let entry = fs::read_dir(root.join("lib/modules"))?.next().context("the package holds no modules")??;
    let depmod = packages::find("depmod").context("depmod not found: install kmod")?;
    run(Command::new(depmod).arg("-b").arg(&root).arg(entry.file_name()))?;
    let place = home.join(package);
    if Kernel::unpacked(&place).is_err() && place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("removing {}", place.display()))?;
    }
    // Another xtask may have unpacked the same in the meantime: what is there then is as good.
    let moved = fs::rename(&root, &place);
    Kernel::unpacked(&place).or_else(|error| {
        moved.with_context(|| format!("moving the kernel to {}", place.display()))?;
        Err(error)
    })
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/arch/x86/kvm/kvm.ko: kernel/virt/lib/irqbypass.ko\n\
        kernel/arch/x86/kvm/kvm-amd.ko.xz: kernel/drivers/crypto/ccp/ccp.ko kernel/arch/x86/kvm/kvm.ko kernel/virt/lib/irqbypass.ko\n\
        kernel/drivers/crypto/ccp/ccp.ko:\nkernel/virt/lib/irqbypass.ko:\n";

    #[test]
    fn modules_come_after_what_they_need_and_only_once() {
        let order = load_order(DEP, "kernel/fs/ext4/ext4.ko\n", &["kvm", "ext4", "kvm_amd"]).unwrap();
        let names: Vec<String> = order.iter().map(|path| module_name(path)).collect();
        assert_eq!(names, ["irqbypass", "kvm", "ccp", "kvm_amd"]);
        assert!(load_order(DEP, "", &["ext4"]).is_err());
    }

    #[test]
    fn newer_packages_compare_greater() {
        assert!(
            numbers("linux-image-6.12.117+deb12-cloud-amd64")
                > numbers("linux-image-6.12.99+deb12-cloud-amd64")
        );
    }
}
