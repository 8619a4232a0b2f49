use std::path::PathBuf;

use anyhow::Result;
use plimsoll_image::create::{DEFAULT_CLUSTER, MAX_SIZE, create};
use plimsoll_image::{FileStorage, Format};
use plimsoll_units::Bytes;

use super::fresh::Fresh;
use super::{format, parse_format, refused};
use crate::exit::{Status, failed};
use crate::output::Output;
use crate::part::PUBLIC;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  plimsoll image create web1.qcow2 20GiB\n  \
                        plimsoll image create web1.raw 20GiB")]
pub(super) struct Create {
    /// The image to make
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Size of the disk
    #[arg(value_name = "SIZE")]
    size: Bytes,
    /// raw or qcow2 [default: as its name ends]
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    format: Option<Format>,
    /// Size of a qcow2 image's clusters, 512 to 2MiB
    #[arg(long, value_name = "SIZE", default_value_t = Bytes(DEFAULT_CLUSTER))]
    cluster: Bytes,
}

impl Create {
    pub(super) fn run(&self, output: &Output) -> Result<()> {
        let format = format(&self.file, self.format);
        let fresh = Fresh::begin(&self.file, PUBLIC)?;
        let storage = FileStorage::new(fresh.file()?).map_err(|error| refused(&self.file, error))?;
        match format {
            Format::Qcow2 => create(&storage, self.size.0, self.cluster.0, None)
                .map_err(|error| refused(&self.file, error))?,
            Format::Raw if self.size.0 == 0 || !self.size.0.is_multiple_of(512) || self.size.0 > MAX_SIZE => {
                let text =
                    format!("a disk of {} bytes: must be a multiple of 512 bytes up to 8TiB", self.size.0);
                return Err(failed(Status::Invalid, text));
            }
            Format::Raw => {
                storage.file().set_len(self.size.0).map_err(|error| refused(&self.file, error))?;
            }
        }
        fresh.finish()?;
        super::info::show(&self.file, format, None, output)
    }
}
