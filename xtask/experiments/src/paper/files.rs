//! What a figure leaves behind: its measurements as comma-separated values, and a drawing.

use std::fs;

use anyhow::{Context, Result};
use plimsoll_lab::workspace::note;

use super::arguments::PaperArgs;

/// Writes `NAME.csv` and `NAME.svg` where the command line says.
pub(super) fn write(arguments: &PaperArgs, name: &str, csv: &str, svg: &str) -> Result<()> {
    let directory = arguments.directory();
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    for (ending, content) in [("csv", csv), ("svg", svg)] {
        let path = directory.join(format!("{name}.{ending}"));
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        note(&format!("{} is written", path.display()));
    }
    Ok(())
}
