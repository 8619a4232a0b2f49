use anyhow::{Context, Result, bail, ensure};
use plimsoll_pmap::GuestRam;
use plimsoll_pmap::PpnRange;
use plimsoll_units::{Bytes as Size, CHUNK_SIZE, PAGE_SIZE, Pages};
use vm_memory::{Bytes, GuestAddress};

use super::file::BootFile;
use super::kernel_image::{Initrd, KernelImage};
use super::loaded::Loaded;
use super::zero_page::zero_page;
use super::{layout, registers};
use crate::whole_pages::whole_pages;

/// Everything that is written to a guest's memory before it starts: checked once, written at every
/// boot.
#[derive(Debug)]
pub(crate) struct BootImage {
    kernel: KernelImage,
    initrd: Option<(Initrd, u32, u32)>,
    regions: Vec<PpnRange>,
    cmdline: Vec<u8>,
    acpi: Vec<u8>,
}

impl BootImage {
    /// Checks that everything fits.
    ///
    /// # Errors
    /// Kernel or initrd cannot be used, or the VM's size, or its command line, does not suit the
    /// kernel.
    pub(crate) fn new(
        kernel: Box<dyn BootFile>,
        initrd: Option<Box<dyn BootFile>>,
        cmdline: &str,
        size: Pages,
        acpi: Vec<u8>,
    ) -> Result<Self> {
        let kernel = KernelImage::new(kernel).context("kernel")?;
        let regions = layout::ram(size);
        let low = regions.first().map_or(0, |range| range.pages.0 * PAGE_SIZE);
        ensure!(
            kernel.setup().load_address() >= layout::HIMEM && kernel.end() <= low,
            "size {}: this kernel needs at least {}",
            size.bytes(),
            size_up_to(kernel.end())
        );
        ensure!(
            cmdline.len() <= kernel.setup().cmdline_max(),
            "command line of {} bytes: this kernel takes {}",
            cmdline.len(),
            kernel.setup().cmdline_max()
        );
        let initrd = initrd.map(|file| place_initrd(file, &kernel, low)).transpose()?;
        let mut cmdline = cmdline.as_bytes().to_vec();
        cmdline.push(0);
        Ok(Self { kernel, initrd, regions, cmdline, acpi })
    }

    /// Writes it. May wait for a grant.
    ///
    /// # Errors
    /// A file cannot be read any more.
    pub(crate) fn load(&self, ram: &GuestRam) -> Result<()> {
        self.kernel.load(ram).context("kernel")?;
        if let Some((initrd, address, _)) = &self.initrd {
            initrd.load(ram, u64::from(*address)).context("initrd")?;
        }
        let initrd = self.initrd.as_ref().map(|(_, address, len)| (*address, *len));
        let pieces: [(u64, &[u8]); 5] = [
            (layout::ZERO_PAGE, &zero_page(&self.kernel, &self.regions, initrd)),
            (layout::CMDLINE, &self.cmdline),
            (layout::ACPI, &self.acpi),
            (layout::PML4, &registers::page_tables()),
            (layout::GDT, &registers::descriptor_tables()),
        ];
        for (address, bytes) in pieces {
            ram.write_slice(bytes, GuestAddress(address))
                .with_context(|| format!("guest memory at {address:#x}"))?;
        }
        Ok(())
    }

    /// What it is once it is written.
    pub(crate) fn loaded(&self) -> Loaded {
        Loaded { entry: self.entry(), pages: self.loaded_pages() }
    }

    /// The pages that hold only what was loaded from kernel and initrd: other VMs may have the
    /// same.
    pub(crate) fn loaded_pages(&self) -> Vec<PpnRange> {
        let initrd = self.initrd.as_ref().and_then(|(_, at, len)| whole_pages((*at).into(), (*len).into()));
        self.kernel.pages().into_iter().chain(initrd).collect()
    }

    /// Where the first vCPU starts: the kernel's 64-bit entry point.
    pub(crate) fn entry(&self) -> u64 {
        self.kernel.setup().load_address() + 0x200
    }
}

/// Puts the initrd as high as it may be, away from the kernel.
fn place_initrd(file: Box<dyn BootFile>, kernel: &KernelImage, low: u64) -> Result<(Initrd, u32, u32)> {
    let initrd = Initrd::new(file).context("initrd")?;
    let end = low.min(kernel.setup().initrd_max() + 1);
    let at = end.checked_sub(initrd.len()).map(|at| at - at % PAGE_SIZE).filter(|at| *at >= kernel.end());
    let Some(at) = at else {
        bail!(
            "initrd of {}: with this kernel the VM needs a size of at least {}",
            Size(initrd.len()),
            Size((kernel.end() + initrd.len() + PAGE_SIZE).next_multiple_of(CHUNK_SIZE))
        );
    };
    let len = u32::try_from(initrd.len()).context("initrd")?;
    Ok((initrd, u32::try_from(at).context("initrd")?, len))
}

/// The smallest size of a VM with memory up to `end`; more than any VM has if no size suffices.
fn size_up_to(end: u64) -> Size {
    Size(end.checked_next_multiple_of(CHUNK_SIZE).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use plimsoll_units::Ppn;

    use super::*;
    use crate::boot::acpi;
    use crate::boot::kernel_image::tests::minimal;

    fn file(bytes: &[u8]) -> Box<dyn BootFile> {
        let mut file: File = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Box::new(file)
    }

    fn image(mib: u64, initrd: usize) -> Result<BootImage> {
        let initrd = (initrd > 0).then(|| file(&vec![1; initrd]));
        BootImage::new(
            file(&minimal()),
            initrd,
            "quiet",
            Pages::ceil(Size::mib(mib)),
            acpi::tables(1, acpi::VirtioBus::Mmio(0)),
        )
    }

    #[test]
    fn the_initrd_is_high_aligned_and_beside_the_kernel() {
        let image = image(64, 5000).unwrap();
        let (_, address, len) = image.initrd.as_ref().unwrap();
        assert_eq!((*address, *len), ((64 << 20) - 8192, 5000));
        let initrd = PpnRange::new(Ppn((16 << 10) - 2), Pages(1));
        assert_eq!(image.loaded_pages().last(), Some(&initrd), "its second page is zeros in part");
    }

    #[test]
    fn what_does_not_fit_says_which_size_would() {
        assert_eq!(image(46, 0).unwrap_err().to_string(), "size 46MiB: this kernel needs at least 48MiB");
        let error = image(48, 1 << 20).unwrap_err().to_string();
        assert_eq!(error, "initrd of 1MiB: with this kernel the VM needs a size of at least 50MiB");
        assert!(image(50, 1 << 20).is_ok());
    }

    #[test]
    fn a_kernel_at_the_end_of_all_addresses_is_refused() {
        let mut kernel = minimal();
        // Its preferred address.
        kernel[0x258..0x260].fill(0xff);
        let size = Pages::ceil(Size::mib(64));
        let error =
            BootImage::new(file(&kernel), None, "quiet", size, acpi::tables(1, acpi::VirtioBus::Mmio(0)))
                .unwrap_err();
        assert!(error.to_string().starts_with("size 64MiB: this kernel needs at least "), "{error}");
    }
}
