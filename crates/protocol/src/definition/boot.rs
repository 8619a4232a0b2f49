use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::devices::Disk;
use super::error::DefinitionError;
use super::limits::MAX_CMDLINE;

/// What a VM runs: a kernel, what is on its disk, or a model of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Where kernel, initrd and command line come from; `None`: from the keys below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<BootFrom>,
    /// What is added to the command line of the disk; only with `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append: Option<String>,
    /// A bzImage. Required unless `from` or `model` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    /// An initial ram disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    #[serde(default = "default_cmdline", skip_serializing_if = "is_default_cmdline")]
    pub cmdline: String,
    /// No guest kernel: a host thread touches the VM's memory through the same pmap and obeys the
    /// toucher's commands on the console. For hosts without usable KVM; never a real guest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub model: bool,
}

/// What a VM boots instead of files of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum BootFrom {
    /// What the first disk's boot loader would boot, looked up at each boot.
    Disk,
}

impl Boot {
    /// Boots what the first disk's boot loader would boot, with `append` on its command line.
    pub fn from_disk(append: &str) -> Self {
        let (from, append) = (Some(BootFrom::Disk), Some(append.to_owned()));
        Self { from, append, kernel: None, initrd: None, cmdline: default_cmdline(), model: false }
    }

    /// Checks that its keys go together, for a VM with these disks.
    ///
    /// # Errors
    /// The first key that does not, in one line.
    pub(super) fn check(&self, disks: &[Disk]) -> Result<(), DefinitionError> {
        let fail = |text: String| Err(DefinitionError::new(text));
        match (&self.kernel, self.from, self.model) {
            (None, None, false) => {
                return fail(
                    "boot.kernel is missing: name a bzImage, or set boot.from = \"disk\"".to_owned(),
                );
            }
            (Some(kernel), None, true) => {
                return fail(format!("boot.kernel {}: a model guest has no kernel", kernel.display()));
            }
            (_, Some(_), true) => {
                return fail("boot.from with boot.model: a model guest has no kernel".to_owned());
            }
            _ => {}
        }
        if self.from.is_some() {
            if let Some((key, path)) = self.files().next() {
                let path = path.display();
                return fail(format!("{key} {path}: with boot.from = \"disk\" it comes from the disk"));
            }
            if !is_default_cmdline(&self.cmdline) {
                return fail(
                    "boot.cmdline with boot.from: it comes from the disk, and boot.append adds to it"
                        .to_owned(),
                );
            }
            if disks.is_empty() {
                return fail("boot.from = \"disk\": the VM has no disk: add a [[disk]]".to_owned());
            }
        } else if self.append.is_some() {
            return fail(
                "boot.append without boot.from: it adds to the disk's command line; use boot.cmdline"
                    .to_owned(),
            );
        }
        let append = self.append.iter().map(|append| ("boot.append", append));
        for (key, words) in [("boot.cmdline", &self.cmdline)].into_iter().chain(append) {
            if let Some(strange) = words.chars().find(|c| c.is_control() || !c.is_ascii()) {
                return fail(format!("{key} with {strange:?}: only printable ASCII characters are allowed"));
            }
            if words.len() > MAX_CMDLINE {
                let len = words.len();
                return fail(format!("{key} of {len} bytes: at most {MAX_CMDLINE} are allowed"));
            }
        }
        Ok(())
    }

    /// The files of the host that it names, each with its key.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let kernel = self.kernel.iter().map(|path| ("boot.kernel", path));
        kernel.chain(self.initrd.iter().map(|path| ("boot.initrd", path)))
    }
}

fn default_cmdline() -> String {
    "console=ttyS0 reboot=acpi panic=-1".to_owned()
}

fn is_default_cmdline(cmdline: &String) -> bool {
    *cmdline == default_cmdline()
}
