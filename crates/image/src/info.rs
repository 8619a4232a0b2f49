//! Facts about an image, for people and programs.

use std::path::PathBuf;

use serde::Serialize;

use crate::chain::Link;
use crate::format::Format;
use crate::header::Header;

/// What one file of an image is.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// Where it is.
    pub path: PathBuf,
    /// What it was opened as.
    pub format: Format,
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes that the file takes on its disk.
    pub allocated: u64,
    /// What only qcow2 has.
    #[serde(flatten)]
    pub qcow2: Option<Qcow2Info>,
}

/// What only qcow2 has.
#[derive(Clone, Debug, Serialize)]
pub struct Qcow2Info {
    /// 2 or 3.
    pub version: u32,
    /// Bytes of a cluster.
    pub cluster: u64,
    /// The backing file's name, as the image has it.
    pub backing: Option<String>,
    /// The backing file's format, where the image states it.
    pub backing_format: Option<Format>,
    /// Internal snapshots: with some, the image is only read.
    pub snapshots: u32,
    /// It was not closed cleanly.
    pub dirty: bool,
    /// A program has found its metadata damaged.
    pub corrupt: bool,
}

impl Info {
    /// The facts about the file of `link`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn of(link: &Link) -> std::io::Result<Self> {
        let metadata = link.file.metadata()?;
        // The unit of st_blocks.
        let allocated = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        let qcow2 = link.header.as_ref().map(Qcow2Info::of);
        let format = link.format();
        Ok(Self { path: link.path.clone(), format, size: link.size()?, allocated, qcow2 })
    }
}

impl Qcow2Info {
    fn of(header: &Header) -> Self {
        Self {
            version: header.version,
            cluster: header.cluster(),
            backing: header.backing.as_ref().map(|backing| backing.name.clone()),
            backing_format: header.backing.as_ref().and_then(|backing| backing.format),
            snapshots: header.snapshots,
            dirty: header.dirty,
            corrupt: header.corrupt,
        }
    }
}
