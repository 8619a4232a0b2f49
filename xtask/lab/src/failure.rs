//! How a lab fails: what it was to do, and what its kernel said.

use std::fmt;

/// A lab that did not do its part: what it was to do, and its consoles. The context of an error.
#[derive(Debug)]
pub struct Failure {
    pub(crate) what: String,
    pub(crate) console: String,
    pub(crate) lines: usize,
}

impl Failure {
    /// Everything that the lab's kernel wrote to its console.
    pub fn console(&self) -> &str {
        &self.console
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\nthe lab's console:\n  {}",
            self.what,
            last_lines(&self.console, self.lines).join("\n  ")
        )
    }
}

impl std::error::Error for Failure {}

/// The last `count` lines of `text`.
pub(crate) fn last_lines(text: &str, count: usize) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].to_vec()
}
