use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// Remembers that a sync of a file in the kernel's page cache has failed.
///
/// The kernel tells of a failed write-back once, and takes the pages for written after that. So a
/// later sync succeeds although what the pages held is nowhere. With this, all syncs fail after the
/// first that did. Direct I/O needs none of it: what was not written is known to its writer.
#[derive(Debug, Default)]
pub struct SyncLatch(AtomicBool);

impl SyncLatch {
    /// Checks that no sync has failed.
    ///
    /// # Errors
    /// One has.
    pub fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::SeqCst) {
            let text = "what was written before is lost: an earlier write-back has failed, and the kernel does not \
                        try it again";
            return Err(io::Error::other(text));
        }
        Ok(())
    }

    /// Notes how a sync has ended.
    ///
    /// # Errors
    /// That of the sync; or an earlier one, or another thread's, has failed.
    pub fn note(&self, synced: io::Result<()>) -> io::Result<()> {
        if let Err(error) = synced {
            self.0.store(true, Ordering::SeqCst);
            return Err(error);
        }
        self.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_sync_that_has_failed_none_succeeds() {
        let latch = SyncLatch::default();
        latch.note(Ok(())).unwrap();
        latch.check().unwrap();
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(latch.note(Err(full())).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(latch.check().is_err() && latch.note(Ok(())).is_err());
    }
}
