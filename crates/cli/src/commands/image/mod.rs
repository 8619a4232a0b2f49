//! `plimsoll image`: disk images as files. No daemon is asked.

mod convert;
mod create;
pub(super) mod fresh;
mod info;
pub(super) mod overlay;
pub(super) mod source;

use std::path::Path;

use anyhow::Result;
use plimsoll_image::Format;

use crate::context::Context;
use crate::exit::{Status, failed};

const HELP: &str = "\
The format of an image is stated by its name (NAME.qcow2 is qcow2, all others are raw) or by an option, and never guessed from its content. An image that is not whole is never left behind. convert and overlay refuse an image that a VM or another program writes. Backing files are looked for in the image's own directory and below; --backing-dir names another.

Examples:
  plimsoll image create web1.qcow2 20GiB
  plimsoll image overlay debian-12.qcow2 web1.qcow2   web1.qcow2 takes what differs from debian-12.qcow2
  plimsoll image convert download.img web1.raw --from qcow2
  plimsoll image info web1.qcow2";

#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_help = HELP)]
pub(crate) struct ImageCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Make an empty image
    Create(create::Create),
    /// Make an image that takes what a disk changes of another one
    Overlay(overlay::Overlay),
    /// Copy an image into one of another format, without backing files
    Convert(convert::Convert),
    /// Show what an image is, and its backing files
    Info(info::InfoCommand),
}

impl ImageCommand {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        match &self.what {
            What::Create(create) => create.run(&context.output),
            What::Overlay(overlay) => overlay.run(&context.output),
            What::Convert(convert) => convert.run(&context.output),
            What::Info(info) => info.run(&context.output),
        }
    }
}

/// The format of `path`: the one that is `stated`, or that of its name.
fn format(path: &Path, stated: Option<Format>) -> Format {
    let by_name = || match path.extension() {
        Some(extension) if extension == "qcow2" => Format::Qcow2,
        _ => Format::Raw,
    };
    stated.unwrap_or_else(by_name)
}

/// Reads a format from the command line.
pub(super) fn parse_format(text: &str) -> Result<Format, String> {
    match text {
        "raw" => Ok(Format::Raw),
        "qcow2" => Ok(Format::Qcow2),
        _ => Err(format!("{text:?} is no format: write raw or qcow2")),
    }
}

/// The failure of a file that cannot be used.
pub(super) fn refused(path: &Path, error: impl Into<anyhow::Error>) -> anyhow::Error {
    failed(Status::Refused, format!("{}: {:#}", path.display(), error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_states_a_format_and_an_option_overrides_it() {
        for (path, stated, expected) in [
            ("a.qcow2", None, Format::Qcow2),
            ("a.raw", None, Format::Raw),
            ("qcow2", None, Format::Raw),
            ("a.qcow2", Some(Format::Raw), Format::Raw),
            ("a.img", Some(Format::Qcow2), Format::Qcow2),
        ] {
            assert_eq!(format(Path::new(path), stated), expected, "{path}");
        }
    }
}
