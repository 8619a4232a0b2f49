//! The setup header of a Linux kernel's file, a bzImage (Documentation/arch/x86/boot.rst), checked.
//!
//! The daemon checks the file that an operator names before it starts anything. The VMM checks the
//! file that it loads, which may come from a hostile disk. This crate does no I/O. Start with
//! [`Setup`].

/// Where the setup header begins, in the file as in the zero page.
pub const HEADER: usize = 0x1f1;
/// The header ends within this many bytes of the file.
pub const HEADER_SPACE: usize = 0x280;

/// The oldest boot protocol with a 64-bit entry and `xloadflags` (Linux 3.8).
const OLDEST: u16 = 0x020c;

const BOOT_FLAG: usize = 0x1fe;
const JUMP: usize = 0x201;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const SYSSIZE: usize = 0x1f4;
const INITRD_MAX: usize = 0x22c;
const XLOADFLAGS: usize = 0x236;
const CMDLINE_SIZE: usize = 0x238;
const PREF_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;

/// Why a file is no kernel that can be booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It has no setup header.
    #[error(
        "it is no Linux kernel (no \"HdrS\" in its header): name a bzImage, such as Debian's /boot/vmlinuz-*"
    )]
    NoKernel,
    /// Its boot protocol is older than 2.12.
    #[error("its boot protocol {0:#06x} is older than {OLDEST:#06x}: name a kernel of Linux 3.8 or newer")]
    TooOld(u16),
    /// It has no 64-bit entry point.
    #[error("it is no 64-bit kernel: name one for x86-64")]
    No64Bit,
}

/// The beginning of a kernel's file, whose setup header is that of a kernel that can be booted.
#[derive(Clone, Debug)]
pub struct Setup(Box<[u8; HEADER_SPACE]>);

impl Setup {
    /// Checks the first bytes of a file.
    ///
    /// # Errors
    /// What the file is instead.
    pub fn new(start: [u8; HEADER_SPACE]) -> Result<Self, Unfit> {
        let setup = Self(Box::new(start));
        if setup.u16(BOOT_FLAG) != 0xaa55 || start[MAGIC..MAGIC + 4] != *b"HdrS" {
            return Err(Unfit::NoKernel);
        }
        if setup.u16(VERSION) < OLDEST {
            return Err(Unfit::TooOld(setup.u16(VERSION)));
        }
        if setup.u16(XLOADFLAGS) & 1 == 0 {
            return Err(Unfit::No64Bit);
        }
        Ok(setup)
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }

    /// The setup header as it is written to the zero page at [`HEADER`]. The byte at 0x201 says
    /// where it ends.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        let end = (MAGIC + usize::from(self.0[JUMP])).min(HEADER_SPACE);
        &self.0[HEADER..end]
    }

    /// Where the part that is loaded begins in the file.
    #[must_use]
    pub fn payload(&self) -> u64 {
        // Zero means four, from the days of floppy disks. The boot sector comes first.
        let sectors = match self.0[HEADER] {
            0 => 4,
            n => u64::from(n),
        };
        (sectors + 1) * 512
    }

    /// The length of that part, rounded up to 16 bytes.
    #[must_use]
    pub fn payload_length(&self) -> u64 {
        u64::from(self.u32(SYSSIZE)) * 16
    }

    /// The address that it prefers to be loaded to, so that it need not move itself.
    #[must_use]
    pub fn load_address(&self) -> u64 {
        self.u64(PREF_ADDRESS)
    }

    /// The memory that it needs from [`Setup::load_address`] on before it looks at the memory map.
    #[must_use]
    pub fn memory_needed(&self) -> u64 {
        u64::from(self.u32(INIT_SIZE))
    }

    /// The highest address that the initrd's last byte may have.
    #[must_use]
    pub fn initrd_max(&self) -> u64 {
        u64::from(self.u32(INITRD_MAX))
    }

    /// The longest command line, without its terminating zero.
    #[must_use]
    pub fn cmdline_max(&self) -> usize {
        usize::try_from(self.u32(CMDLINE_SIZE)).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel() -> [u8; HEADER_SPACE] {
        let mut start = [0; HEADER_SPACE];
        start[BOOT_FLAG..][..2].copy_from_slice(&0xaa55u16.to_le_bytes());
        start[JUMP] = 0x6a;
        start[MAGIC..][..4].copy_from_slice(b"HdrS");
        start[VERSION..][..2].copy_from_slice(&0x020fu16.to_le_bytes());
        start[XLOADFLAGS] = 1;
        start
    }

    #[test]
    fn what_is_no_kernel_is_told_by_its_fault() {
        let with = |at: usize, byte: u8| {
            let mut start = kernel();
            start[at] = byte;
            Setup::new(start).err()
        };
        assert_eq!(with(MAGIC, b'h'), Some(Unfit::NoKernel));
        assert_eq!(with(VERSION, 3), Some(Unfit::TooOld(0x203)));
        assert_eq!(with(XLOADFLAGS, 0), Some(Unfit::No64Bit));
        assert_eq!(Setup::new([0; HEADER_SPACE]).err(), Some(Unfit::NoKernel));
    }

    #[test]
    fn no_setup_sectors_stand_for_four_and_the_header_ends_where_it_says() {
        let setup = Setup::new(kernel()).unwrap();
        assert_eq!(setup.payload(), 5 * 512);
        assert_eq!(setup.header().len(), 0x202 + 0x6a - HEADER);
    }
}
