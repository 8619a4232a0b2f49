use std::path::{Path, PathBuf};

use anyhow::Result;
use plimsoll_protocol::VmName;
use plimsoll_units::Bytes;

use super::super::image::overlay;
use super::base::Base;
use crate::client::Client;
use crate::exit::{Status, failed, status_of};

/// Permissions of a VM's disk: what is on it is the guest's.
const PERMISSIONS: u32 = 0o600;

/// The disk that was made for a VM.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Checks that a disk can be made at `path` of `base`, with `size` where that is given. Returns
    /// its size.
    ///
    /// # Errors
    /// There is a file, or the size is too small.
    pub(super) fn plan(path: &Path, base: &Base, size: Option<Bytes>) -> Result<u64> {
        if path.symlink_metadata().is_ok() {
            let text = format!(
                "{}: there is a disk already: remove it if no VM needs it, or name another VM with --name, or another \
                 disk with --disk",
                path.display()
            );
            return Err(failed(Status::Conflict, text));
        }
        match size {
            Some(size) if size.0 < base.size => {
                let text =
                    format!("--disk-size {size}: the image has {}: write as much or more", Bytes(base.size));
                Err(failed(Status::Invalid, text))
            }
            size => Ok(size.map_or(base.size, |size| size.0)),
        }
    }

    /// Makes the disk.
    ///
    /// # Errors
    /// There is a file by now, or it cannot be made; none is left then.
    pub(super) fn make(path: &Path, base: &Base, size: u64) -> Result<Self> {
        overlay::make(path, PERMISSIONS, &base.path, base.format, size)?;
        Ok(Self { path: path.to_owned() })
    }

    /// Removes the disk after `failure`, unless VM `name` may have it. Returns what to tell.
    pub(super) fn undo(self, failure: anyhow::Error, name: &VmName, client: &Client) -> anyhow::Error {
        let path = self.path.display();
        let may_have = match client.definition(name) {
            Ok(definition) => definition.disks.iter().any(|disk| disk.path == self.path),
            Err(error) => status_of(&error) != Status::Unknown,
        };
        let left = if may_have {
            format!("{name} has its disk {path}")
        } else {
            match std::fs::remove_file(&self.path) {
                Ok(()) => return failure,
                Err(error) => format!("its disk {path} cannot be removed: {error}"),
            }
        };
        failed(status_of(&failure), format!("{failure:#}; {left}"))
    }
}
