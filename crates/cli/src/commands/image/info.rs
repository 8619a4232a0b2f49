use std::path::{Path, PathBuf};

use anyhow::Result;
use plimsoll_image::info::Info;
use plimsoll_image::{Format, chain};
use plimsoll_units::Bytes;

use super::{format, parse_format, refused};
use crate::output::Output;
use crate::part::directory;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  plimsoll image info web1.qcow2\n  \
                        plimsoll image info download.img --format qcow2 --json")]
pub(super) struct InfoCommand {
    /// The image
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// raw or qcow2 [default: as its name ends]
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    format: Option<Format>,
    /// Directory that its backing files lie in or below [default: the image's]
    #[arg(long, value_name = "DIRECTORY")]
    backing_dir: Option<PathBuf>,
}

impl InfoCommand {
    pub(super) fn run(&self, output: &Output) -> Result<()> {
        show(&self.file, format(&self.file, self.format), self.backing_dir.as_deref(), output)
    }
}

/// Prints what the image at `path` is, and each of its backing files, which lie below `backing_dir`
/// or the image's directory.
pub(super) fn show(path: &Path, format: Format, backing_dir: Option<&Path>, output: &Output) -> Result<()> {
    let home = backing_dir.unwrap_or_else(|| directory(path));
    let links =
        chain::open(path, format, false, home).map_err(|error| refused(&error.path.clone(), error.source))?;
    let facts: std::io::Result<Vec<Info>> = links.iter().map(Info::of).collect();
    let facts = facts.map_err(|error| refused(path, error))?;
    output.facts(&facts, |facts| facts.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn line(info: &Info) -> String {
    let Info { path, format, size, allocated, qcow2 } = info;
    let mut line =
        format!("{}: {format}, disk {}, on disk {}", path.display(), Bytes(*size), Bytes(*allocated));
    if let Some(qcow2) = qcow2 {
        line += &format!(", version {}, clusters of {}", qcow2.version, Bytes(qcow2.cluster));
        if let Some(backing) = &qcow2.backing {
            line += &format!(", backing file {backing}");
        }
        if qcow2.snapshots > 0 {
            line += &format!(", {} snapshots: only read", qcow2.snapshots);
        }
        if qcow2.dirty || qcow2.corrupt {
            line += ", to be repaired: only read";
        }
    }
    line
}
