use std::sync::Arc;

use anyhow::{Context, Result};
use plimsoll_image::{FileStorage, Image};
use plimsoll_pmap::GuestRam;
use plimsoll_units::Pages;

use super::file::BootFile;
use super::load::BootImage;
use super::loaded::Loaded;
use super::reader::BootReader;

/// Where a guest's kernel comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// Files that the daemon passed.
    Files { kernel: Box<dyn BootFile>, initrd: Option<Box<dyn BootFile>> },
    /// What is on the first disk.
    Disk(BootReader),
}

/// Loads the guest's kernel at each boot.
#[derive(Debug)]
pub(crate) enum Loader {
    /// The same each time.
    Files(BootImage),
    /// What the disk says then. `image` is what the disk's device has open, if it is an image.
    Disk {
        reader: BootReader,
        image: Option<Arc<Image<FileStorage>>>,
        append: String,
        size: Pages,
        acpi: Vec<u8>,
    },
}

impl Loader {
    /// Checks that files fit; a disk is looked at when the guest boots. `image` is what the first
    /// disk's device has open, if that is an image. `cmdline` is the kernel's command line, or what
    /// is added to the disk's.
    ///
    /// # Errors
    /// As [`BootImage::new`].
    pub(crate) fn new(
        source: Source,
        image: Option<Arc<Image<FileStorage>>>,
        cmdline: &str,
        size: Pages,
        acpi: Vec<u8>,
    ) -> Result<Self> {
        Ok(match source {
            Source::Files { kernel, initrd } => {
                Self::Files(BootImage::new(kernel, initrd, cmdline, size, acpi)?)
            }
            Source::Disk(reader) => Self::Disk { reader, image, append: cmdline.to_owned(), size, acpi },
        })
    }

    /// Writes the kernel and all that it finds to guest memory. May wait for a grant. `tell` is
    /// called with what a disk boots, in one line. Devices must be at rest: no request is in
    /// flight.
    ///
    /// # Errors
    /// The disk boots nothing that fits, its image cannot be written, or a file cannot be read any
    /// more.
    pub(crate) fn load(&self, ram: &GuestRam, tell: impl FnOnce(String)) -> Result<Loaded> {
        match self {
            Self::Files(image) => image.load(ram).map(|()| image.loaded()),
            Self::Disk { reader, image, append, size, acpi } => {
                // The reader looks at the file: see "A disk that the VM's device writes" there.
                let saved = image.as_ref().map_or(Ok(()), |image| image.flush());
                saved.context("boot from disk: what the guest wrote cannot be saved to the disk's image")?;
                let found = reader.find().context("boot from disk")?;
                tell(format!("boots {}", found.description));
                let cmdline = format!("{} {append}", found.cmdline);
                let initrd = found.initrd.map(|file| Box::new(file) as Box<dyn BootFile>);
                let image =
                    BootImage::new(Box::new(found.kernel), initrd, cmdline.trim(), *size, acpi.clone());
                let image = image.with_context(|| format!("boot from disk: {}", found.description))?;
                image.load(ram).context("boot from disk")?;
                reader.forget().context("boot from disk")?;
                Ok(image.loaded())
            }
        }
    }
}
