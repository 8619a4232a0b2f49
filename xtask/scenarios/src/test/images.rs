//! Disk images, made and judged by QEMU's qemu-img.

use std::process::Command;

use anyhow::{Context, Result};
use plimsoll_lab::command::run;
use plimsoll_lab::workspace;
use preflight::program;

/// The step's name.
pub(super) const NAME: &str = "images";

/// Runs the tests of images that need qemu-img; all other runs leave them out, or do without it.
///
/// # Errors
/// qemu-img is not there, or a test has failed.
pub(super) fn check() -> Result<()> {
    let qemu = program::find("qemu-img").context("qemu-img not found: install qemu-utils")?;
    let of_images = ["plimsoll-image", "--test", "qemu", "--", "--ignored"];
    // Images whose VMM's process is killed.
    let of_disks = ["plimsoll-vmm", "--lib", "--", "block::tests::power"];
    for tests in [&of_images[..], &of_disks] {
        let mut cargo = Command::new("cargo");
        cargo.args(["test", "--locked", "--quiet", "--package"]).args(tests);
        run(cargo.current_dir(workspace::root()).env("PLIMSOLL_QEMU_IMG", &qemu))?;
    }
    Ok(())
}
