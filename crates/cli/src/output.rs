use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use plimsoll_text::without_controls_but;
use serde::Serialize;

use crate::exit::{AlreadyReported, Status, status_of};

/// Where a command's facts go: the standard output, as text for people or as JSON for programs.
pub(crate) struct Output {
    json: bool,
}

/// The reader of our output has gone (`plimsoll ps | head -1`): no failure.
#[derive(Debug)]
pub(crate) struct ReaderGone;

impl Display for ReaderGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the reader of the output has gone")
    }
}

impl std::error::Error for ReaderGone {}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether the output is a terminal, so that it may be redrawn.
    pub(crate) fn is_terminal(&self) -> bool {
        !self.json && io::stdout().is_terminal()
    }

    /// Prints facts: pretty JSON where asked for, else the text that `text` makes of them.
    pub(crate) fn facts<T: Serialize + ?Sized>(
        &self,
        facts: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<()> {
        if self.json { self.text(&serde_json::to_string_pretty(facts)?) } else { self.text(&text(facts)) }
    }

    /// Prints one of a stream of facts: JSON in one line where asked for, else text.
    pub(crate) fn fact_line<T: Serialize + ?Sized>(
        &self,
        fact: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<()> {
        if self.json { self.text(&serde_json::to_string(fact)?) } else { self.text(&text(fact)) }
    }

    /// Prints `text`, ended by a newline unless it is empty.
    fn text(&self, text: &str) -> Result<()> {
        let text = for_terminal(text.strip_suffix('\n').unwrap_or(text));
        if text.is_empty() { Ok(()) } else { self.bytes(format!("{text}\n").as_bytes()) }
    }

    /// Prints `bytes` as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|e| {
            if e.kind() == io::ErrorKind::BrokenPipe {
                anyhow::Error::new(ReaderGone)
            } else {
                anyhow::Error::new(e).context("writing to the standard output")
            }
        })
    }

    /// Prints `bytes` as they are on the standard error.
    ///
    /// # Errors
    /// The standard error cannot be written.
    pub(crate) fn error_bytes(&self, bytes: &[u8]) -> Result<()> {
        io::stderr().lock().write_all(bytes).context("writing to the standard error")
    }

    /// Shows the progress of a wait on one line of the terminal, which it overwrites. Does nothing
    /// without a terminal.
    pub(crate) fn progress(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        if !self.json && stderr.is_terminal() {
            // There is no other place to report a terminal that cannot be written.
            write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush()).ok();
        }
    }

    /// Removes the line of [`Self::progress`].
    pub(crate) fn end_progress(&self) {
        self.progress("");
    }

    /// Prints a remark on the standard error: neither a fact nor an error.
    pub(crate) fn remark(&self, text: &str) {
        // There is no other place to report a standard error that cannot be written.
        writeln!(io::stderr(), "{}", for_terminal(text)).ok();
    }
}

/// Prints why a command failed, and returns its exit status.
pub(crate) fn failure(error: &anyhow::Error, json: bool) -> ExitCode {
    if error.is::<ReaderGone>() {
        return ExitCode::SUCCESS;
    }
    if let Some(AlreadyReported(status)) = error.downcast_ref() {
        return ExitCode::from(status.code());
    }
    complain(error, json);
    ExitCode::from(status_of(error).code())
}

/// Prints an error in one line on the standard error: what failed, on what, what to do.
pub(crate) fn complain(error: &anyhow::Error, json: bool) {
    print_error(&for_terminal(&joined(&format!("{error:#}"))), json);
}

/// Prints help where it was asked for, else what is wrong with the command line.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    let json = std::env::args_os().any(|a| a == "--json");
    if !error.use_stderr() || (!json && error.kind() == DisplayHelpOnMissingArgumentOrSubcommand) {
        // There is no other place to report that the terminal has gone.
        error.print().ok();
    } else {
        print_error(&for_terminal(&what_is_wrong(&error.to_string())), json);
    }
    if error.use_stderr() { ExitCode::from(Status::Invalid.code()) } else { ExitCode::SUCCESS }
}

/// clap's text of several paragraphs in one line: what is wrong and its tips, and in place of the
/// usage where help is.
fn what_is_wrong(text: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    for paragraph in text.split("\n\n").map(str::trim) {
        let words = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        if words.starts_with("Usage:") {
            // "Usage: plimsoll set <...> <VM>": the command ends where its arguments begin.
            let command = words.split(' ').skip(1).take_while(|w| w.chars().all(char::is_alphanumeric));
            parts.push(format!("try {} --help", command.collect::<Vec<_>>().join(" ")));
        } else if !words.starts_with("For more information") && !words.is_empty() {
            parts.push(words.strip_prefix("error: ").unwrap_or(&words).to_owned());
        }
    }
    parts.join("; ")
}

fn print_error(text: &str, json: bool) {
    let line =
        if json { serde_json::json!({ "error": text }).to_string() } else { format!("plimsoll: {text}") };
    // Without a standard error the exit status has to do.
    writeln!(io::stderr(), "{line}").ok();
}

/// `text` for a terminal, in lines: names of failures come from guests, too.
fn for_terminal(text: &str) -> String {
    without_controls_but(&['\n', '\t'], text)
}

fn joined(text: &str) -> String {
    text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_command_line_fits_a_line() {
        let text = "error: unrecognized subcommand 'pss'\n\n  tip: a similar one exists: 'ps'\n\n\
                    Usage: plimsoll [OPTIONS] <COMMAND>\n\nFor more information, try '--help'.\n";
        assert_eq!(
            what_is_wrong(text),
            "unrecognized subcommand 'pss'; tip: a similar one exists: 'ps'; try plimsoll --help"
        );
    }

    #[test]
    fn an_error_of_many_lines_is_told_in_one() {
        assert_eq!(joined("a\n  b\n\nc\n"), "a, b, c");
    }
}
