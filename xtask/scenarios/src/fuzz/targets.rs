//! The targets, in the order in which they run: the slowest first.

use std::path::PathBuf;

use plimsoll_lab::workspace;

/// A function of any bytes.
#[derive(Debug)]
pub(super) struct Target {
    /// Its name on the command line, in `fuzz/src/main.rs` and of its directory in `fuzz/corpus`.
    pub(super) name: &'static str,
    /// What it is.
    pub(super) about: &'static str,
    /// Its thousandths of all executions: by its speed, so that each runs for about as long.
    pub(super) share: u64,
}

impl Target {
    /// The directories with inputs to begin with.
    pub(super) fn inputs(&self) -> Vec<PathBuf> {
        let mut directories = vec![workspace::root().join("fuzz/corpus").join(self.name)];
        if self.name == "scenario" {
            directories.push(workspace::root().join("scenarios"));
        }
        directories
    }
}

const fn target(name: &'static str, share: u64, about: &'static str) -> Target {
    Target { name, about, share }
}

/// All of them.
pub(super) const TARGETS: &[Target] = &[
    target("virtio-block", 8, "a guest at the registers and the rings of its disk"),
    target("virtio-net", 8, "a guest at those of its network interface"),
    target("virtio-balloon", 6, "a guest at those of its balloon"),
    target("virtio-entropy", 10, "a guest at those of its source of random numbers"),
    target("virtio-vsock", 8, "a guest at those of its sockets to the host, and programs at the other end"),
    target("virtio-pci", 10, "a guest at the PCI functions of its devices"),
    target("core", 10, "the daemon's decisions, among hostile VMMs, operators and a slow data plane"),
    target("api", 25, "what a client sends over a connection of the API, with a core behind it"),
    target("swap", 8, "pages that leave for a swap file and come back, which anything may happen to"),
    target("scenario", 35, "scenarios of `plimsoll plan` with their traces, and their first steps"),
    target("image", 20, "a qcow2 image with any content, and what a guest asks of it"),
    target("boot", 80, "a kernel that a VMM loads, with any header"),
    target("boot-disk", 20, "a guest's disk, and the configurations of boot loaders on it"),
    target("console", 100, "a guest at its serial port, and its output"),
    target("control", 170, "packets of the control socket, in both directions"),
    target("kernel", 222, "a file that an operator names as a kernel"),
    target("config", 100, "the daemon's configuration"),
    target("records", 60, "records of VMs, runs and pools on disk"),
    target("definition", 100, "definitions of VMs and pools, and changes of them"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        assert_eq!(TARGETS.iter().map(|target| target.share).sum::<u64>(), 1000);
    }

    #[test]
    fn every_target_is_in_the_program_and_has_inputs_to_begin_with() {
        let program = std::fs::read_to_string(workspace::root().join("fuzz/src/main.rs")).unwrap();
        assert_eq!(program.matches("\n    (\"").count(), TARGETS.len());
        for target in TARGETS {
            assert!(program.contains(&format!("(\"{}\", ", target.name)), "{}", target.name);
            let inputs = std::fs::read_dir(&target.inputs()[0]).unwrap();
            let sizes: Vec<u64> = inputs.map(|input| input.unwrap().metadata().unwrap().len()).collect();
            let size: u64 = sizes.iter().sum();
            assert!(!sizes.is_empty() && size < 32 << 10, "{}: {size} bytes", target.name);
        }
    }
}
