use std::io;
use std::path::{Path, PathBuf};

use anyhow::Result;
use plimsoll_image::create::{DEFAULT_CLUSTER, create};
use plimsoll_image::image::Raw;
use plimsoll_image::{FileStorage, Format, Image, Qcow2, chain};
use plimsoll_units::Bytes;

use super::fresh::Fresh;
use super::{format, parse_format, refused, source};
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
    /// The image to read; refused while a VM writes it
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
        let source = self.source(output)?;
        let fresh = Fresh::begin(&self.file, PUBLIC)?;
        let made = made(&fresh, to, source.size()).map_err(|error| refused(&self.file, error))?;
        let copied = self.copy(&source, &made, output);
        output.end_progress();
        copied?;
        made.flush().map_err(|error| refused(&self.file, error))?;
        drop(made);
        fresh.finish()?;
        super::info::show(&self.file, to, None, output)
    }

    fn source(&self, output: &Output) -> Result<Image<FileStorage>> {
        let home = self.backing_dir.as_deref().unwrap_or_else(|| directory(&self.source));
        let links = source::open(&self.source, format(&self.source, self.from), home, output)?;
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

    fn copy(&self, from: &Image<FileStorage>, to: &Image<FileStorage>, output: &Output) -> Result<()> {
        let size = from.size();
        let mut memory = vec![0; usize::try_from(PIECE)?];
        for (number, offset) in (0..size).step_by(usize::try_from(PIECE)?).enumerate() {
            let piece = &mut memory[..usize::try_from(PIECE.min(size - offset))?];
            from.read(piece, offset).map_err(|error| at(&self.source, "reading", offset, error))?;
            if piece.iter().any(|byte| *byte != 0) {
                to.write(piece, offset).map_err(|error| at(&self.file, "writing", offset, error))?;
            }
            if (number as u64).is_multiple_of(REPORT) {
                output.progress(&format!("{} of {}", Bytes(offset), Bytes(size)));
            }
        }
        Ok(())
    }
}

/// The failure to move a piece of the image at `path`.
fn at(path: &Path, what: &str, offset: u64, error: io::Error) -> anyhow::Error {
    refused(path, anyhow::Error::from(error).context(format!("{what} at byte {offset}")))
}

/// An empty image of `size` bytes.
fn made(fresh: &Fresh, format: Format, size: u64) -> Result<Image<FileStorage>> {
    let storage = FileStorage::new(fresh.file()?)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_file_and_the_place() {
        let error = at(Path::new("/a.qcow2"), "reading", 65536, io::ErrorKind::UnexpectedEof.into());
        assert_eq!(error.to_string(), "/a.qcow2: reading at byte 65536: unexpected end of file");
    }
}
