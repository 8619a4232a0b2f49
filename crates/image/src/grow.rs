//! Making the guest's disk of a qcow2 image longer.

use std::sync::atomic::Ordering;

use plimsoll_sys::lock;

use crate::create::MAX_SIZE;
use crate::error::Error;
use crate::header::SIZE_AT;
use crate::lock::exclusive;
use crate::qcow2::Qcow2;
use crate::storage::Storage;

impl<S: Storage> Qcow2<S> {
    /// Makes the guest's disk `size` bytes long, and that durable. What is new reads as zeros.
    ///
    /// # Errors
    /// The disk would shrink, the image is only read, its tables or its backing file forbid it, or
    /// the kernel's. The disk is as long as before then, at least until the image is opened again.
    pub fn grow(&self, size: u64) -> Result<(), Error> {
        let invalid = |what: String| Err(Error::Invalid(what));
        let _exclusive = exclusive(&self.in_use);
        let mut metadata = lock(&self.metadata);
        metadata.is_writable()?;
        let before = self.size();
        if size < before {
            return invalid(format!("its disk of {before} bytes cannot shrink to {size}"));
        }
        if !size.is_multiple_of(512) || size > MAX_SIZE {
            return invalid(format!("a disk of {size} bytes: must be a multiple of 512 bytes up to 8TiB"));
        }
        if self.backing.as_ref().is_some_and(|backing| backing.size() > before) {
            return invalid("its backing file is longer than its disk, and would show behind it".to_owned());
        }
        let entries = metadata.lengthen(&self.storage, size, self.header.mapped_by_table())?;
        // Size, encryption (none) and entries of the first-level table stand side by side: one
        // write within a sector.
        let mut fields = [0; 16];
        fields[..8].copy_from_slice(&size.to_be_bytes());
        fields[12..].copy_from_slice(&entries.to_be_bytes());
        self.storage.write_at(&fields, SIZE_AT)?;
        self.storage.sync()?;
        self.size.store(size, Ordering::SeqCst);
        Ok(())
    }
}
