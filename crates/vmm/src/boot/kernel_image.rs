use plimsoll_bzimage::{HEADER_SPACE, Setup, Unfit};
use plimsoll_pmap::{GuestRam, PpnRange};
use vm_memory::{Bytes, GuestAddress};

use super::file::BootFile;
use crate::whole_pages::whole_pages;

/// Bytes that are read and written at once: a compromise of copies in the cache and calls.
const COPY: usize = 256 * 1024;
/// Largest kernel or initrd. A larger file is no kernel or initrd, or would leave the guest no
/// room.
const MAX_FILE: u64 = 1 << 30;

/// A kernel that cannot be used: what is wrong with the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
    #[error("it ends after {0} bytes: it is no whole kernel")]
    Truncated(u64),
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("{0} bytes are more than the {MAX_FILE} that can be loaded")]
    TooLarge(u64),
    #[error("guest memory at {address:#x} cannot be written")]
    Memory { address: u64, source: vm_memory::GuestMemoryError },
}

/// A bzImage (Documentation/arch/x86/boot.rst): its setup header, checked, and the file that the
/// rest is in.
#[derive(Debug)]
pub(crate) struct KernelImage {
    file: Box<dyn BootFile>,
    setup: Setup,
    len: u64,
}

impl KernelImage {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// The file is no bzImage with a 64-bit entry point, or it is cut off.
    pub(crate) fn new(file: Box<dyn BootFile>) -> Result<Self, ImageError> {
        let len = file.len().map_err(ImageError::Read)?;
        let mut start = [0; HEADER_SPACE];
        file.read_exact_at(&mut start, 0).map_err(|e| truncated(e, len))?;
        let setup = Setup::new(start)?;
        let payload = setup.payload();
        // The length in the header is rounded up to 16 bytes.
        if payload >= len || len - payload + 16 <= setup.payload_length() {
            return Err(ImageError::Truncated(len));
        }
        if len > MAX_FILE {
            return Err(ImageError::TooLarge(len));
        }
        Ok(Self { file, setup, len })
    }

    /// The setup header, checked.
    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The bytes of the file that are loaded.
    fn payload(&self) -> std::ops::Range<u64> {
        self.setup.payload()..self.len
    }

    /// End of the memory that it needs from its load address on before it looks at the memory map.
    pub(crate) fn end(&self) -> u64 {
        let payload = self.len - self.setup.payload();
        self.setup.load_address().saturating_add(self.setup.memory_needed().max(payload))
    }

    /// The pages that the kernel covers wholly, if there are any.
    pub(crate) fn pages(&self) -> Option<PpnRange> {
        whole_pages(self.setup.load_address(), self.len - self.setup.payload())
    }

    /// Writes the kernel to its load address. May wait for a grant.
    ///
    /// # Errors
    /// The file cannot be read (any more), or the address is not RAM.
    pub(crate) fn load(&self, ram: &GuestRam) -> Result<(), ImageError> {
        copy(&*self.file, self.payload(), ram, self.setup.load_address())
    }
}

/// An initial ram disk.
#[derive(Debug)]
pub(crate) struct Initrd {
    file: Box<dyn BootFile>,
    len: u64,
}

impl Initrd {
    /// Finds its size.
    ///
    /// # Errors
    /// It cannot be read, is empty or too large.
    pub(crate) fn new(file: Box<dyn BootFile>) -> Result<Self, ImageError> {
        match file.len().map_err(ImageError::Read)? {
            0 => Err(ImageError::Truncated(0)),
            len if len > MAX_FILE => Err(ImageError::TooLarge(len)),
            len => Ok(Self { file, len }),
        }
    }

    /// Its size in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Writes it to `address`. May wait for a grant.
    ///
    /// # Errors
    /// As for a kernel.
    pub(crate) fn load(&self, ram: &GuestRam, address: u64) -> Result<(), ImageError> {
        copy(&*self.file, 0..self.len, ram, address)
    }
}

/// Copies part of a file to guest memory, through a buffer: read(2) straight into memory that waits
/// for a grant fails where the userfaultfd was made without privilege.
fn copy(file: &dyn BootFile, from: std::ops::Range<u64>, ram: &GuestRam, to: u64) -> Result<(), ImageError> {
    let mut buffer = vec![0; COPY];
    let mut at = from.start;
    while at < from.end {
        let left = usize::try_from(from.end - at).unwrap_or(COPY).min(COPY);
        file.read_exact_at(&mut buffer[..left], at).map_err(|e| truncated(e, at))?;
        let address = to + (at - from.start);
        ram.write_slice(&buffer[..left], GuestAddress(address))
            .map_err(|source| ImageError::Memory { address, source })?;
        at += left as u64;
    }
    Ok(())
}

fn truncated(error: std::io::Error, at: u64) -> ImageError {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => ImageError::Truncated(at),
        _ => ImageError::Read(error),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use plimsoll_bzimage::HEADER;

    use super::*;

    /// The smallest file that passes for a kernel.
    pub(crate) fn minimal() -> Vec<u8> {
        let mut image = vec![0; 1024 + 64];
        image[HEADER] = 1;
        image[0x1f4] = 4;
        image[0x1fe..][..2].copy_from_slice(&0xaa55u16.to_le_bytes());
        image[0x201] = 0x6a;
        image[0x202..][..4].copy_from_slice(b"HdrS");
        image[0x206..][..2].copy_from_slice(&0x020fu16.to_le_bytes());
        image[0x236] = 1; // XLF_KERNEL_64
        image[0x22c..][..4].copy_from_slice(&0x7fff_ffffu32.to_le_bytes()); // initrd_addr_max
        image[0x238..][..4].copy_from_slice(&2047u32.to_le_bytes()); // cmdline_size
        image[0x258..][..8].copy_from_slice(&0x100_0000u64.to_le_bytes()); // pref_address
        image[0x260..][..4].copy_from_slice(&0x200_0000u32.to_le_bytes()); // init_size
        image
    }

    pub(crate) fn open(bytes: &[u8]) -> Result<KernelImage, ImageError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        KernelImage::new(Box::new(file))
    }

    #[test]
    fn a_kernel_tells_where_it_goes() {
        let image = open(&minimal()).unwrap();
        assert_eq!((image.setup().load_address(), image.end()), (0x100_0000, 0x300_0000));
        assert_eq!(image.setup().header().len(), 0x202 + 0x6a - HEADER);
    }

    #[test]
    fn what_is_no_kernel_is_told_by_its_fault() {
        let changed = |at: usize, byte: u8| {
            let mut image = minimal();
            image[at] = byte;
            open(&image).unwrap_err()
        };
        assert!(matches!(changed(0x202, b'h'), ImageError::Unfit(Unfit::NoKernel)));
        assert!(matches!(changed(0x206, 3), ImageError::Unfit(Unfit::TooOld(0x203))));
        assert!(matches!(changed(0x236, 0), ImageError::Unfit(Unfit::No64Bit)));
        assert!(matches!(changed(0x1f5, 9), ImageError::Truncated(_)));
        assert!(matches!(open(&minimal()[..1024]), Err(ImageError::Truncated(1024))));
        assert!(matches!(open(b"#!/bin/sh\n"), Err(ImageError::Truncated(_))));
        assert!(matches!(open(&[0; 4096]), Err(ImageError::Unfit(Unfit::NoKernel))));
    }
}
