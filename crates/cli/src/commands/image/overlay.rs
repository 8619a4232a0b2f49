use std::path::{Path, PathBuf};

use anyhow::Result;
use plimsoll_image::create::{DEFAULT_CLUSTER, create};
use plimsoll_image::{Backing, FileStorage, Format};

use super::fresh::Fresh;
use super::{format, parse_format, refused, source};
use crate::exit::{Status, failed};
use crate::output::Output;
use crate::part::{PUBLIC, directory};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A base that overlays refer to must not change any more: make it read-only.\n\nExamples:\n  \
                        plimsoll image overlay debian-12.qcow2 web1.qcow2"
)]
pub(super) struct Overlay {
    /// The image that is the base; it is never written
    #[arg(value_name = "BASE")]
    base: PathBuf,
    /// The qcow2 image to make
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The base's format, raw or qcow2 [default: as its name ends]
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    base_format: Option<Format>,
    /// Directory that the base's own backing files lie in or below [default: the base's]
    #[arg(long, value_name = "DIRECTORY")]
    backing_dir: Option<PathBuf>,
}

impl Overlay {
    pub(super) fn run(&self, output: &Output) -> Result<()> {
        let base = std::fs::canonicalize(&self.base).map_err(|error| refused(&self.base, error))?;
        let base_format = format(&self.base, self.base_format);
        let home = self.backing_dir.clone().unwrap_or_else(|| directory(&base).to_owned());
        // All of them can be used, or the overlay could not.
        let links = source::open(&base, base_format, &home, output)?;
        let size = links[0].size().map_err(|error| refused(&base, error))?;
        make(&self.file, PUBLIC, &base, base_format, size)?;
        super::info::show(&self.file, Format::Qcow2, Some(&home), output)
    }
}

/// Makes the image `file`, a disk of `size` bytes that takes what differs from `base`, with
/// `permissions` less the umask's.
///
/// # Errors
/// There is a file of that name, or it cannot be made; none is left then.
pub(in crate::commands) fn make(
    file: &Path,
    permissions: u32,
    base: &Path,
    base_format: Format,
    size: u64,
) -> Result<()> {
    let name = base.to_str().ok_or_else(|| failed(Status::Invalid, "the base's path is not UTF-8"))?;
    let backing = Backing { name: name.to_owned(), format: Some(base_format) };
    let fresh = Fresh::begin(file, permissions)?;
    let storage = FileStorage::new(fresh.file()?).map_err(|error| refused(file, error))?;
    create(&storage, size, DEFAULT_CLUSTER, Some(&backing)).map_err(|error| refused(file, error))?;
    fresh.finish()
}
