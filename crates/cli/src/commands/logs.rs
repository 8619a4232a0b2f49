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
  plimsoll logs web1                 messages of its process: why it did not start, what it lacks
  plimsoll logs web1 --console -f    what its guest prints, as it prints it";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Logs {
    /// Name of the VM
    #[arg(value_name = "VM")]
    name: VmName,
    /// Print what its guest wrote to the console, not the messages of its process
    #[arg(long)]
    console: bool,
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
        let source = if self.console { LogSource::Console } else { LogSource::Vmm };
        let mut seen = context.client.log(&self.name, source)?;
        self.print(context, source, &seen)?;
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
