use std::path::PathBuf;

use anyhow::{Context, Result};
use plimsoll_image::create::{DEFAULT_CLUSTER, create};
use plimsoll_image::image::Raw;
use plimsoll_image::{FileStorage, Format, Image, Qcow2, chain};
use plimsoll_units::Bytes;

use super::fresh::Fresh;
use super::{format, parse_format, refused};
use crate::exit::{Status, failed};
use crate::output::Output;
use crate::part::{PUBLIC, directory};

/// Bytes that are copied at a time: a cluster of the images that are made.
const PIECE: u64 = DEFAULT_CLUSTER;
/// Pieces between two looks at how far it is.
const REPORT: u64 = 256;

#[derive(Debug, clap::Args)]
#[command(after_help = "Zeros are not written. What is compressed is decompressed.\n\nExamples:\n  \
                        plimsoll image convert debian-12.qcow2 web1.raw\n  \
                        plimsoll image convert download.img web1.qcow2 --from qcow2")]
pub(super) struct Convert {
    /// The image to read; no VM may be writing it
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
    /// The image to make
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The source's format, raw or qcow2 [default: as its name ends]
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    from: Option<Format>,
    /// The new image's format, raw or qcow2 [default: as its name ends]
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    to: Option<Format>,
    /// Directory that the source's backing files lie in or below [default: the source's]
    #[arg(long, value_name = "DIRECTORY")]
    backing_dir: Option<PathBuf>,
}

impl Convert {
    pub(super) fn run(&self, output: &Output) -> Result<()> {
        let to = format(&self.file, self.to);
        let source = self.source()?;
        let fresh = Fresh::begin(&self.file, PUBLIC)?;
        let made = made(FileStorage::new(fresh.file()?)?, to, source.size());
        let made = made.map_err(|error| refused(&self.file, error))?;
        let copied = copy(&source, &made, output);
        output.end_progress();
        copied?;
        made.flush().map_err(|error| refused(&self.file, error))?;
        drop(made);
        fresh.finish()?;
        super::info::show(&self.file, to, None, output)
    }

    fn source(&self) -> Result<Image<FileStorage>> {
        let home = self.backing_dir.as_deref().unwrap_or_else(|| directory(&self.source));
        let links = chain::open(&self.source, format(&self.source, self.from), false, home)
            .map_err(|error| refused(&error.path.clone(), error.source))?;
        let files: Vec<_> = links.into_iter().map(|link| (link.format(), link.file)).collect();
        let files = files.into_iter().map(|(format, file)| (file, format));
        let image = chain::image(files, false).map_err(|error| refused(&self.source, error))?;
        match image.size() {
            size if size > 0 && size.is_multiple_of(512) => Ok(image),
            size => Err(failed(
                Status::Refused,
                format!(
                    "{}: its {size} bytes are no multiple of 512: it is truncated, or no {} image",
                    self.source.display(),
                    format(&self.source, self.from)
                ),
            )),
        }
    }
}

/// An empty image of `size` bytes.
fn made(storage: FileStorage, format: Format, size: u64) -> Result<Image<FileStorage>> {
    Ok(match format {
        Format::Raw => {
            storage.file().set_len(size)?;
            Image::Raw(Raw::new(storage)?)
        }
        Format::Qcow2 => {
            create(&storage, size, DEFAULT_CLUSTER, None)?;
            Image::Qcow2(Box::new(Qcow2::open(storage, true, None)?))
        }
    })
}

fn copy(from: &Image<FileStorage>, to: &Image<FileStorage>, output: &Output) -> Result<()> {
    let size = from.size();
    let mut memory = vec![0; usize::try_from(PIECE)?];
    for (number, offset) in (0..size).step_by(usize::try_from(PIECE)?).enumerate() {
        let piece = &mut memory[..usize::try_from(PIECE.min(size - offset))?];
        from.read(piece, offset).with_context(|| format!("reading at {offset}"))?;
        if piece.iter().any(|byte| *byte != 0) {
            to.write(piece, offset).with_context(|| format!("writing at {offset}"))?;
        }
        if (number as u64).is_multiple_of(REPORT) {
            output.progress(&format!("{} of {}", Bytes(offset), Bytes(size)));
        }
    }
    Ok(())
}
