//! The documents for operators: the README and the pages of the book.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plimsoll_lab::workspace;

use crate::markdown::Page;
use crate::shell;

/// Where the pages of the book are.
pub(crate) const SOURCES: &str = "book/src";

/// A document.
#[derive(Debug)]
pub(crate) struct Document {
    /// Its path from the root of the repository.
    pub(crate) path: PathBuf,
    pub(crate) page: Page,
}

/// All documents, the README first.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn all() -> Result<Vec<Document>> {
    let mut paths = vec![PathBuf::from("README.md")];
    let mut directories = vec![PathBuf::from(SOURCES)];
    while let Some(directory) = directories.pop() {
        let absolute = workspace::root().join(&directory);
        for entry in fs::read_dir(&absolute).with_context(|| format!("reading {}", absolute.display()))? {
            let entry = entry?;
            let path = directory.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    paths[1..].sort_unstable();
    paths.into_iter().map(read).collect()
}

fn read(path: PathBuf) -> Result<Document> {
    let absolute = workspace::root().join(&path);
    let text = fs::read_to_string(&absolute).with_context(|| format!("reading {}", absolute.display()))?;
    Ok(Document { page: Page::read(&text), path })
}

/// A command that a document has its readers type.
#[derive(Debug)]
pub struct CommandLine {
    /// File and line, for messages.
    pub place: String,
    /// Program and arguments.
    pub words: Vec<String>,
}

/// The commands in all documents' blocks.
///
/// # Errors
/// A document that cannot be read, or a line that cannot be taken apart.
pub fn command_lines() -> Result<Vec<CommandLine>> {
    let mut found = Vec::new();
    for document in all()? {
        for block in &document.page.blocks {
            let place = place(&document.path, block.line);
            let lines = match block.info.as_str() {
                "console" => shell::typed(&block.text).with_context(|| place.clone())?,
                "sh" => block.text.lines().map(str::to_owned).collect(),
                _ => continue,
            };
            for line in lines {
                for words in shell::commands(&line).with_context(|| place.clone())? {
                    found.push(CommandLine { place: place.clone(), words });
                }
            }
        }
    }
    Ok(found)
}

/// A line of a document, for messages.
pub(crate) fn place(path: &Path, line: usize) -> String {
    format!("{}:{line}", path.display())
}
