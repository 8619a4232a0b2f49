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
    #[error(
        "it is no bzImage (no \"HdrS\" in its header): name the compressed kernel, such as /boot/vmlinuz-*"
    )]
    NoBzImage,
    #[error("its boot protocol {0:#06x} is older than 2.12: a kernel from 3.8 on is needed")]
    TooOld(u16),
    #[error("it has no 64-bit entry point: an x86-64 kernel is needed")]
    No64Bit,
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
    /// The file's first sectors, with the setup header at [`HEADER`].
    setup: Vec<u8>,
    payload: u64,
    len: u64,
}

/// Where the setup header begins, in the file as in the zero page.
pub(crate) const HEADER: usize = 0x1f1;
/// The header ends within this many bytes.
const HEADER_SPACE: usize = 0x280;
const BOOT_FLAG: usize = 0x1fe;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const INITRD_MAX: usize = 0x22c;
const XLOADFLAGS: usize = 0x236;
const CMDLINE_SIZE: usize = 0x238;
const PREF_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;

impl KernelImage {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// The file is no bzImage with a 64-bit entry point, or it is cut off.
    pub(crate) fn new(file: Box<dyn BootFile>) -> Result<Self, ImageError> {
        let len = file.len().map_err(ImageError::Read)?;
        let mut setup = vec![0; HEADER_SPACE];
        file.read_exact_at(&mut setup, 0).map_err(|e| truncated(e, len))?;
        let image = Self { payload: 0, file, setup, len };
        if image.u16(BOOT_FLAG) != 0xaa55 || image.setup[MAGIC..MAGIC + 4] != *b"HdrS" {
            return Err(ImageError::NoBzImage);
        }
        if image.u16(VERSION) < 0x020c {
            return Err(ImageError::TooOld(image.u16(VERSION)));
        }
        if image.u16(XLOADFLAGS) & 1 == 0 {
            return Err(ImageError::No64Bit);
        }
        // Zero means four, from the days of floppy disks.
        let sectors = match image.setup[HEADER] {
            0 => 4,
            n => u64::from(n),
        };
        let payload = (sectors + 1) * 512;
        // The size of the rest, in units of 16 bytes.
        let syssize = u64::from(image.u32(0x1f4)) * 16;
        if payload >= len || len - payload + 16 <= syssize {
            return Err(ImageError::Truncated(len));
        }
        if len > MAX_FILE {
            return Err(ImageError::TooLarge(len));
        }
        Ok(Self { payload, ..image })
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.setup[at], self.setup[at + 1]])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }

    /// The setup header as it is written to the zero page at [`HEADER`]. The byte at 0x201 says
    /// where it ends.
    pub(crate) fn header(&self) -> &[u8] {
        let end = (MAGIC + usize::from(self.setup[0x201])).min(HEADER_SPACE);
        &self.setup[HEADER..end]
    }

    /// The address to load it to: its preferred address, so that it need not move itself.
    pub(crate) fn load_address(&self) -> u64 {
        self.u64(PREF_ADDRESS)
    }

    /// End of the memory that it needs from [`KernelImage::load_address`] on before it looks at the
    /// memory map.
    pub(crate) fn end(&self) -> u64 {
        let needed = u64::from(self.u32(INIT_SIZE)).max(self.len - self.payload);
        self.load_address().saturating_add(needed)
    }

    /// The highest address that the initrd's last byte may have.
    pub(crate) fn initrd_max(&self) -> u64 {
        u64::from(self.u32(INITRD_MAX))
    }

    /// The longest command line, without its terminating zero.
    pub(crate) fn cmdline_max(&self) -> usize {
        usize::try_from(self.u32(CMDLINE_SIZE)).unwrap_or(usize::MAX)
    }

    /// The pages that the kernel covers wholly, if there are any.
    pub(crate) fn pages(&self) -> Option<PpnRange> {
        whole_pages(self.load_address(), self.len - self.payload)
    }

    /// Writes the kernel to its load address. May wait for a grant.
    ///
    /// # Errors
    /// The file cannot be read (any more), or the address is not RAM.
    pub(crate) fn load(&self, ram: &GuestRam) -> Result<(), ImageError> {
        copy(&*self.file, self.payload..self.len, ram, self.load_address())
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

    use super::*;

    /// The smallest file that passes for a kernel.
    pub(crate) fn minimal() -> Vec<u8> {
        let mut image = vec![0; 1024 + 64];
        image[HEADER] = 1;
        image[0x1f4] = 4;
        image[BOOT_FLAG..][..2].copy_from_slice(&0xaa55u16.to_le_bytes());
        image[0x201] = 0x6a;
        image[MAGIC..][..4].copy_from_slice(b"HdrS");
        image[VERSION..][..2].copy_from_slice(&0x020fu16.to_le_bytes());
        image[XLOADFLAGS] = 1;
        image[INITRD_MAX..][..4].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
        image[CMDLINE_SIZE..][..4].copy_from_slice(&2047u32.to_le_bytes());
        image[PREF_ADDRESS..][..8].copy_from_slice(&0x100_0000u64.to_le_bytes());
        image[INIT_SIZE..][..4].copy_from_slice(&0x200_0000u32.to_le_bytes());
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
        assert_eq!((image.load_address(), image.end()), (0x100_0000, 0x300_0000));
        assert_eq!(image.header().len(), 0x202 + 0x6a - HEADER);
    }

    #[test]
    fn what_is_no_kernel_is_told_by_its_fault() {
        let changed = |at: usize, byte: u8| {
            let mut image = minimal();
            image[at] = byte;
            open(&image).unwrap_err()
        };
        assert!(matches!(changed(MAGIC, b'h'), ImageError::NoBzImage));
        assert!(matches!(changed(VERSION, 3), ImageError::TooOld(0x203)));
        assert!(matches!(changed(XLOADFLAGS, 0), ImageError::No64Bit));
        assert!(matches!(changed(0x1f5, 9), ImageError::Truncated(_)));
        assert!(matches!(open(&minimal()[..1024]), Err(ImageError::Truncated(1024))));
        assert!(matches!(open(b"#!/bin/sh\n"), Err(ImageError::Truncated(_))));
        assert!(matches!(open(&[0; 4096]), Err(ImageError::NoBzImage)));
    }
}
