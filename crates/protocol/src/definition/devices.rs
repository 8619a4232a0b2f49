use std::path::PathBuf;

use plimsoll_units::Bytes;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::error::DefinitionError;
use super::rate::RateKeys;
use crate::burst::Burst;

/// A disk: a file or a block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Where it is on the host.
    pub path: PathBuf,
    /// What it is; never guessed from its content.
    #[serde(default, skip_serializing_if = "ImageFormat::is_raw")]
    pub format: ImageFormat,
    /// What its guest sees as its serial number: 1 to [`MAX_SERIAL`] of `A-Z a-z 0-9 . _ -`, the
    /// same for no two disks of a VM; `None`: one that is made of its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The guest may not write it; several VMs may then share it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Most requests a second, [`MIN_IOPS`] at least; `None`: as many as the host's disk does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u64>,
    /// Most bytes a second, [`MIN_BANDWIDTH`] at least; `None`: as many as the host's disk does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bytes>,
    /// What it may do at once after a rest, as time at that rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Burst>,
    /// Where its data is cached; `None`: see [`Disk::cache`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
}

/// The format of a disk's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// The bytes of the disk.
    #[default]
    Raw,
    /// QEMU's format. Its backing files lie below the daemon's directory of images.
    Qcow2,
}

impl ImageFormat {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_raw(&self) -> bool {
        *self == Self::Raw
    }
}

/// Where a disk's data is cached, beside the guest's own page cache.
///
/// The guest's flushes mean the same with both: what was written before is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// Nowhere: the host's page cache is passed by (`O_DIRECT`).
    None,
    /// In the host's page cache, which no VM is charged for.
    Host,
}

impl Disk {
    /// A raw disk that the guest writes, of which all but its path has its default value.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            format: ImageFormat::Raw,
            serial: None,
            read_only: false,
            iops: None,
            bandwidth: None,
            burst: None,
            cache: None,
        }
    }

    /// The serial number that its guest sees, if it is at `index` of its VM's disks.
    pub fn serial(&self, index: usize) -> String {
        self.serial.clone().unwrap_or_else(|| Self::made_serial(index))
    }

    /// The serial number of the disk at `index` that has none of its own.
    pub fn made_serial(index: usize) -> String {
        format!("plimsoll-disk{index}")
    }

    /// Where its data is cached. By default nothing of a disk that the guest writes is: its blocks
    /// would be in memory twice, in the guest, which is charged for them, and in the host, where no
    /// ledger counts them and dirty ones of one VM hold up all others. A disk that is only read is
    /// often the base of many VMs: one copy on the host serves them all, is never dirty, and goes
    /// as soon as memory is short.
    pub fn cache(&self) -> Cache {
        self.cache.unwrap_or(if self.read_only { Cache::Host } else { Cache::None })
    }

    /// Checks its limits.
    ///
    /// # Errors
    /// What is wrong and what would do, on one line.
    pub(super) fn check(&self) -> Result<(), DefinitionError> {
        let device = format!("disk {}", self.path.display());
        if let Some(serial) = &self.serial {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if serial.is_empty() || serial.len() > MAX_SERIAL || !serial.bytes().all(legal) {
                return Err(DefinitionError::new(format!(
                    "{device}: serial {serial:?}: must be 1 to {MAX_SERIAL} of A-Z a-z 0-9 . _ -"
                )));
            }
        }
        let keys = RateKeys {
            device,
            operations: ("iops", self.iops, MIN_IOPS),
            bandwidth: (self.bandwidth, MIN_BANDWIDTH),
        };
        keys.check()
    }
}

/// Longest serial number: what virtio has room for.
pub const MAX_SERIAL: usize = 20;
/// Lowest limit of a disk's requests a second. With less, guests take their disk for broken.
pub const MIN_IOPS: u64 = 10;
/// Lowest limit of a disk's bytes a second. A request of the largest size (32 MiB) then takes half
/// a minute, which is when Linux reports a task that hangs.
pub const MIN_BANDWIDTH: Bytes = Bytes::mib(1);

/// What the balloon device offers the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Balloon {
    /// The guest may take memory back from the balloon before its OOM killer runs.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "is_true"))]
    pub deflate_on_oom: bool,
    /// The guest reports free memory in large units, which is given back at once.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "is_true"))]
    pub free_page_reporting: bool,
}

impl Default for Balloon {
    fn default() -> Self {
        Self { deflate_on_oom: true, free_page_reporting: true }
    }
}

/// What is left out where it is written: see the `Serialize` of [`Balloon`].
#[cfg(feature = "schema")]
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde would pass it")]
fn is_true(value: &bool) -> bool {
    *value
}

impl Serialize for Balloon {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The messages to a VMM do not name their fields, so none can be left out of them.
        let whole = !serializer.is_human_readable();
        let mut fields = serializer.serialize_struct("Balloon", 2)?;
        for (key, value) in
            [("deflate_on_oom", self.deflate_on_oom), ("free_page_reporting", self.free_page_reporting)]
        {
            if whole || !value {
                fields.serialize_field(key, &value)?;
            } else {
                fields.skip_field(key)?;
            }
        }
        fields.end()
    }
}
