use std::io;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use plimsoll_protocol::VmName;
use plimsoll_protocol::agent::{CommandEnd, Execute, OutputStream};

use crate::context::Context;
use crate::guest::{Input, connect, execute};

const HELP: &str = "\
The command runs as root in the guest, by its agent, without a terminal and without a shell: write sh -c '...' for one. Standard input, output and error are those of plimsoll. When plimsoll is ended, or cannot read its input, the command's process group gets SIGHUP, and SIGKILL after 5 s.

The exit status is the command's; 128 and the number of the signal that ended it; or, where it did not run, that of the table below.

The VM needs [vsock] in its definition, and plimsoll-agent in the guest.

Examples:
  plimsoll exec web1 -- uptime
  plimsoll exec web1 --directory /srv -- tar c . > srv.tar
  plimsoll exec web1 -- sh -c 'cat > /etc/motd' < motd";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Exec {
    /// Name of the VM
    #[arg(value_name = "VM")]
    name: VmName,
    /// Where in the guest it runs [default: /]
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<String>,
    /// The program and its arguments
    #[arg(value_name = "COMMAND", required = true, last = true)]
    command: Vec<String>,
}

impl Exec {
    pub(crate) fn run(&self, context: &Context) -> Result<ExitCode> {
        let stream = connect(&context.client.vm(&self.name)?, context)?;
        let command = Execute { command: self.command.clone(), directory: self.directory.clone() };
        let input = Input { name: "the standard input".to_owned(), from: io::stdin() };
        let end = execute(&stream, command, input, |stream, bytes| match stream {
            OutputStream::Out => context.output.bytes(bytes),
            OutputStream::Error => context.output.error_bytes(bytes),
        });
        match end.with_context(|| self.name.to_string())? {
            CommandEnd::Exited(status) => Ok(ExitCode::from(status)),
            CommandEnd::Killed(signal) => Ok(ExitCode::from(signal.saturating_add(128))),
        }
    }
}
