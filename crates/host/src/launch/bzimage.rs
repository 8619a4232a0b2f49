//! Whether a file is a kernel that can be booted: the setup header of the x86 boot protocol.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, ensure};

/// The header lies within the first two sectors.
const HEAD: usize = 1024;
/// The oldest boot protocol with a 64-bit entry and `xloadflags` (Linux 3.8).
const OLDEST: u16 = 0x020c;

/// Checks the kernel in `file`, which is `len` bytes long.
///
/// # Errors
/// What it is instead of a whole bzImage for x86-64.
pub(crate) fn check(file: &File, len: u64) -> anyhow::Result<()> {
    const WANTED: &str = "name a bzImage, such as Debian's /boot/vmlinuz-*";
    let mut head = [0; HEAD];
    ensure!(len >= HEAD as u64, "it is no Linux kernel ({len} bytes are too few): {WANTED}");
    file.read_exact_at(&mut head, 0).context("cannot be read")?;
    let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    ensure!(u16_at(0x1fe) == 0xaa55 && &head[0x202..0x206] == b"HdrS", "it is no Linux kernel: {WANTED}");
    let version = u16_at(0x206);
    ensure!(
        version >= OLDEST,
        "its boot protocol {version:#06x} is older than {OLDEST:#06x}: {WANTED} of Linux 3.8 or newer"
    );
    ensure!(u16_at(0x236) & 1 != 0, "it is no 64-bit kernel: {WANTED}");
    // Zero stands for four sectors; the boot sector comes first (Documentation/arch/x86/boot.rst).
    let setup = if head[0x1f1] == 0 { 4 } else { u64::from(head[0x1f1]) };
    let paragraphs = u32::from_le_bytes([head[0x1f4], head[0x1f5], head[0x1f6], head[0x1f7]]);
    let whole = (setup + 1) * 512 + u64::from(paragraphs) * 16;
    ensure!(len >= whole, "it is truncated: {len} bytes of {whole} are there; copy it again");
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The smallest thing that passes for a kernel.
    pub(crate) fn kernel() -> Vec<u8> {
        let mut image = vec![0; 8192];
        image[0x1f1] = 1;
        image[0x1f4..0x1f8].copy_from_slice(&(7168u32 / 16).to_le_bytes());
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
        image[0x236] = 1;
        image
    }

    fn verdict(image: &[u8]) -> String {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(image, 0).unwrap();
        check(&file, image.len() as u64).map_or_else(|e| e.to_string(), |()| "good".to_owned())
    }

    #[test]
    fn what_is_no_whole_kernel_is_told_apart() {
        let good = kernel();
        assert_eq!(verdict(&good), "good");
        assert!(verdict(&good[..8191]).contains("truncated"));
        assert!(verdict(&good[..100]).contains("no Linux kernel"));
        assert!(verdict(&[0x7f; 4096]).contains("no Linux kernel"));
        let with = |at: usize, byte: u8| {
            let mut image = good.clone();
            image[at] = byte;
            verdict(&image)
        };
        assert!(with(0x236, 0).contains("64-bit"));
        assert!(with(0x206, 0).contains("older"));
        assert!(with(0x1f7, 0xff).contains("truncated"));
    }
}
