//! systemd's journal: each entry has fields of its own, which `journalctl` finds entries by.

use std::env;
use std::os::fd::AsFd;

use rustix::fs::{Stat, fstat};
use tracing_journald::Layer;

/// What the name of each field begins with: a VM is in `PLIMSOLL_VM`.
const PREFIX: &str = "PLIMSOLL";

/// What writes to the journal; `None`: standard error does not go there, or it cannot be reached.
pub(crate) fn layer() -> Option<Layer> {
    let stream = env::var("JOURNAL_STREAM").ok()?;
    is_stream(&stream, &fstat(std::io::stderr().as_fd()).ok()?)
        .then(Layer::new)?
        .ok()
        .map(|layer| layer.with_field_prefix(Some(PREFIX.to_owned())))
}

/// Whether `found` is the stream that the service manager has named as `DEVICE:INODE`: a program
/// that a service starts may have another standard error, and the variable all the same
/// (systemd.exec(5), `$JOURNAL_STREAM`).
fn is_stream(stream: &str, found: &Stat) -> bool {
    stream == format!("{}:{}", found.st_dev, found.st_ino)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_journal_is_where_the_service_manager_says_it_is() {
        let file = tempfile::tempfile().unwrap();
        let (found, metadata) = (fstat(&file).unwrap(), file.metadata().unwrap());
        let (device, inode) = (metadata.dev(), metadata.ino());
        assert!(is_stream(&format!("{device}:{inode}"), &found));
        for other in ["", "8:1", &format!("{device}"), &format!("{device}:{}", inode + 1)] {
            assert!(!is_stream(other, &found), "{other:?}");
        }
    }
}
