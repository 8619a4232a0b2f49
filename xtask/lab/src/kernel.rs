//! Debian's cloud kernels, unpacked into the cache, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use preflight::{deb, kernel, program};

use crate::command::{self, run};
use crate::programs;
use crate::workspace::step;

pub use preflight::kernel::Version;

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its release, such as `6.1.0-56-cloud-amd64`.
    pub release: String,
    /// The bzImage.
    pub image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The kernel of `version`, from the cache or else from Debian.
    pub fn get(version: Version) -> Result<Self> {
        let package = kernel::fetch(version)?;
        let home = kernel::home()?;
        match Self::unpacked(&home.join(&package)) {
            Some(kernel) => Ok(kernel),
            None => unpack(&home, &package),
        }
    }

    /// The kernel unpacked at `root`.
    fn unpacked(root: &Path) -> Option<Self> {
        let release = kernel::unpacked(root)?;
        let image = root.join(format!("boot/vmlinuz-{release}"));
        let modules = root.join("lib/modules").join(&release);
        Some(Self { release, image, modules })
    }

    /// The modules `names` and all that they depend on, in an order in which they can be loaded,
    /// uncompressed: file name and content. Names of drivers that are built into this kernel are
    /// skipped; unknown names are an error.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
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

/// Paths of the modules `names` with their dependencies first, each once. `dependencies` is
/// modules.dep.
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
    let content = command::output(Command::new(programs::busybox()?).arg("xzcat").arg(file))?;
    ensure!(!content.is_empty(), "busybox xzcat made nothing of {}", file.display());
    Ok(content)
}

/// Unpacks `package` into `home`, and works out its modules' dependencies.
fn unpack(home: &Path, package: &str) -> Result<Kernel> {
    let deb = deb::file(package)?;
    step(&format!("unpacking {package}"));
    let scratch = tempfile::tempdir_in(home)?;
    let root = scratch.path().join("root");
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&root))?;
    let entry = fs::read_dir(root.join("lib/modules"))?.next().context("the package holds no modules")??;
    let depmod = program::find("depmod").context("depmod not found: install kmod")?;
    run(Command::new(depmod).arg("-b").arg(&root).arg(entry.file_name()))?;
    let place = home.join(package);
    if Kernel::unpacked(&place).is_none() && place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("removing {}", place.display()))?;
    }
    // Another xtask may have unpacked the same in the meantime: its copy is as good.
    let moved = fs::rename(&root, &place);
    let Some(kernel) = Kernel::unpacked(&place) else {
        moved.with_context(|| format!("moving the kernel to {}", place.display()))?;
        bail!("{} is incomplete", place.display());
    };
    // The package's file has served; another xtask may have removed it.
    fs::remove_file(&deb).ok();
    Ok(kernel)
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
}
