use std::time::Duration;

use anyhow::Result;
use plimsoll_protocol::VmName;
use serde::Serialize;

use crate::client::LogSource;
use crate::context::Context;
use crate::follow;

/// How often a log that is followed is read again: logs come whole, so more often would cost the
/// daemon for little.
const POLL: Duration = Duration::from_secs(1);

const HELP: &str = "\
Examples:
  plimsoll logs web1 -n 50       the last lines that its guest printed
  plimsoll logs web1 -f          what its guest prints, as it prints it
  plimsoll logs web1 --vmm       messages of its process: why it did not start, what it lacks";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Logs {
    /// Name of the VM
    #[arg(value_name = "VM")]
    name: VmName,
    /// Print the messages of its process, not what its guest wrote to the console
    #[arg(long)]
    vmm: bool,
    /// Print what its guest wrote to the console: the default
    #[arg(long, conflicts_with = "vmm")]
    console: bool,
    /// Print only the last N lines
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<usize>,
    /// Keep printing new output until interrupted
    #[arg(short, long)]
    follow: bool,
}

#[derive(Serialize)]
struct Chunk<'a> {
    vm: &'a VmName,
    source: LogSource,
    text: std::borrow::Cow<'a, str>,
}

impl Logs {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let source = if self.vmm && !self.console { LogSource::Vmm } else { LogSource::Console };
        let mut seen = context.client.log(&self.name, source)?;
        let last = self.lines.map_or(&seen[..], |lines| last_lines(&seen, lines));
        self.print(context, source, last)?;
        if !self.follow {
            return Ok(());
        }
        loop {
            std::thread::sleep(POLL);
            let now = context.client.log(&self.name, source)?;
            let added = follow::added(&seen, &now);
            if !added.is_empty() {
                self.print(context, source, added)?;
            }
            seen = now;
        }
    }

    fn print(&self, context: &Context, source: LogSource, bytes: &[u8]) -> Result<()> {
        if !context.output.is_json() {
            return context.output.bytes(bytes);
        }
        let chunk = Chunk { vm: &self.name, source, text: String::from_utf8_lossy(bytes) };
        context.output.fact_line(&chunk, |c| c.text.to_string())
    }
}

/// The last `count` lines of `text`.
fn last_lines(text: &[u8], count: usize) -> &[u8] {
    if count == 0 {
        return &[];
    }
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let ends = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    ends.map(|(at, _)| at).nth(count - 1).map_or(text, |end| &text[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_whole() {
        for (text, count, expected) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\n\n", 1, "\n"),
            ("a\n", 0, ""),
            ("", 3, ""),
        ] {
            assert_eq!(last_lines(text.as_bytes(), count), expected.as_bytes(), "{text:?} {count}");
        }
    }
}
