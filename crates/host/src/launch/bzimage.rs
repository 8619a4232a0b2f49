//! Whether a file is a whole kernel that can be booted.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, ensure};
use plimsoll_bzimage::{HEADER_SPACE, Setup};

/// The least length of a kernel: the sectors that its header lies in.
const LEAST: u64 = 1024;

/// Checks the kernel in `file`, which is `len` bytes long.
///
/// # Errors
/// What it is instead of a whole bzImage for x86-64.
pub(crate) fn check(file: &File, len: u64) -> anyhow::Result<()> {
    ensure!(
        len >= LEAST,
        "it is no Linux kernel ({len} bytes are too few): name a bzImage, such as Debian's /boot/vmlinuz-*"
    );
    let mut start = [0; HEADER_SPACE];
    file.read_exact_at(&mut start, 0).context("cannot be read")?;
    let setup = Setup::new(start)?;
    let whole = setup.payload() + setup.payload_length();
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
