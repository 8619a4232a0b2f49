//! `cargo xtask book`: the operators' book, in `book/`.
//!
//! The book is laid out for [mdBook](https://rust-lang.github.io/mdBook/), which makes a web site
//! of it; nothing here needs mdBook. Pages that the code can tell are made here of the code
//! ([`mod@reference`]). The tests hold everything else in the book, and in the README, against the
//! code: every block of commands, every definition and configuration, every link, the table of
//! contents, and the texts of events.
//!
//! [`markdown`] takes a page apart, [`shell`] a command line. [`tutorial`] names what the tutorial
//! has its readers do, for the scenario that does it.

#![expect(
    rustdoc::private_intra_doc_links,
    reason = "the parts are private, and the docs are for their readers"
)]

mod documents;
mod markdown;
mod reference;
mod shell;
pub mod tutorial;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use plimsoll_lab::workspace::{self, note};

pub use self::documents::{CommandLine, command_lines};

/// Writes the pages of the reference that are made of the code.
///
/// # Errors
/// A page that cannot be made or written.
pub fn write() -> Result<ExitCode> {
    let mut written = 0;
    for page in reference::pages()? {
        let path = workspace::root().join(documents::SOURCES).join(&page.path);
        if fs::read_to_string(&path).is_ok_and(|text| text == page.text) {
            continue;
        }
        let parent = path.parent().context("a page is in a directory")?;
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, &page.text))
            .with_context(|| format!("writing {}", path.display()))?;
        note(&path.display().to_string());
        written += 1;
    }
    note(&format!("pages that have changed: {written}"));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
