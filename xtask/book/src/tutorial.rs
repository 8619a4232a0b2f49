//! What the tutorial has its readers do, in its order.

use anyhow::{Context, Result};
use toml::Table;

use crate::markdown::Page;
use crate::shell;

const PAGE: &str = include_str!("../../../book/src/tutorial.md");

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The daemon's configuration is this.
    Configure(Table),
    /// A definition is saved, in a file of the VM's name.
    Define(Table),
    /// A command is typed: program and arguments.
    Type(Vec<String>),
}

/// All steps.
///
/// # Errors
/// A block that cannot be read.
pub fn steps() -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for block in Page::read(PAGE).blocks {
        let place = || format!("the tutorial, line {}", block.line);
        match block.info.as_str() {
            "toml configuration" => steps.push(Step::Configure(block.text.parse().with_context(place)?)),
            "toml definition" => steps.push(Step::Define(block.text.parse().with_context(place)?)),
            "console" => {
                for line in shell::typed(&block.text).with_context(place)? {
                    steps.extend(shell::commands(&line).with_context(place)?.into_iter().map(Step::Type));
                }
            }
            _ => {}
        }
    }
    Ok(steps)
}
